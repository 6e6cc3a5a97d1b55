"""Builds a phase's moments: the parts that exist at each of them, and the memory of an update or an evaluation.

A phase has moments (an update, sampling, scoring, …) that do not coincide; its peak is the largest of them. Everything
follows from settings, the model's configuration and the lengths of the records.
"""

from collections.abc import Mapping

import torch

from triphase.footprints.moments import (
    ACTIVATIONS,
    ADAPTERS,
    ALLOCATOR,
    BASE,
    CACHE,
    CHUNK,
    GRADIENTS,
    HEADS,
    KERNELS,
    MOMENTS,
    PACKED,
    PROCESS,
    SERVERS,
    TEMPORARY,
    TRUNK,
    Footprint,
    Moment,
)
from triphase.footprints.work import Shape, Work
from triphase.footprints.workload import Lengths, Workload, largest, shapes_of
from triphase.models.tracing import Traced
from triphase.rollouts.writing import KEPT_SHARE
from triphase.settings.phases import AVERAGE
from triphase.settings.schema import RunSettings

# Freed memory that the C library has in pieces too small to reuse, as a share of temporary memory in training, and of
# the cache in sampling, whose rows leave and join: 0.33 to 0.9 was measured with glibc (docs/performance.md).
_ALLOCATOR_SHARE = 0.5
# oneDNN compiles a product for each shape of bfloat16 operands on a CPU, and caches some of them (`models.products`).
_COMPILED_BYTES = 80e6
_FLOAT32 = 4.0


class CostModel:
    """Memory and operations of one run's phases, from which each phase makes its `Footprint`.

    Attributes:
        settings, work, load: the run's settings, its traced model, and its records.
        process_bytes: memory of the run's process before it has opened the model; 0 on a GPU.
        server_bytes: memory that servers take which the run starts; 0 if they have devices of their own.
        card_bytes: the memory of the GPU; 0 on a CPU.
        ranks: processes that share each step.
    """

    def __init__(
        self,
        settings: RunSettings,
        work: Work,
        load: Workload,
        *,
        process_bytes: float,
        server_bytes: float = 0.0,
        card_bytes: float = 0.0,
        ranks: int = 1,
    ) -> None:
        self.settings = settings
        self.work = work
        self.load = load
        self.process_bytes, self.server_bytes = process_bytes, server_bytes
        self.card_bytes, self.ranks = card_bytes, ranks
        self._chunk = work.head_chunk()

    def static(self, *, adapters: int, trained: float, by_servers: bool = False) -> dict[str, float]:
        """The memory at every moment of a phase; ``by_servers``: servers sample in it."""
        return {
            SERVERS: self.server_bytes if by_servers else 0.0,
            PROCESS: self.process_bytes,
            KERNELS: _COMPILED_BYTES if self.process_bytes and self.work.dtype is torch.bfloat16 else 0.0,
            BASE: self.work.base_bytes,
            ADAPTERS: _FLOAT32 * adapters * self.work.adapter_numbers,
            HEADS: _FLOAT32 * (1 + self.settings.has_critic) * (self.work.hidden_size + 1),
            GRADIENTS: _FLOAT32 * trained,
            MOMENTS: 0.0 if self.settings.model.offload else 2 * _FLOAT32 * trained,
        }

    def with_trunk(
        self,
        found: Footprint,
        static: dict[str, float],
        lengths: Lengths,
        visits: float,
        shape: Shape,
        max_tokens: int | None,
        *,
        packed: bool,
    ) -> dict[str, float]:
        """``static`` with the boundary states that are cached in memory; the rest is in a file, or recomputed."""
        work, adapters = self.work, self.settings.adapters
        if not work.trunk_layers:
            return static
        traced, tokens = work.trunk(shape), tokens_of(lengths)
        size, before = work.boundary_bytes(tokens), static.get(TRUNK, 0.0)
        memory = min(size, max(0.0, adapters.trunk_cache_gb * 1e9 - before))
        kept = min(size, memory + adapters.trunk_file_gb * 1e9) if visits > 1 else 0.0
        found.compute("forward", traced, shape, tokens * (kept / size + (1 - kept / size) * visits))
        if kept:
            wide = largest(
                shapes_of(
                    lengths,
                    batch_size=len(lengths.sampled),
                    max_tokens=max_tokens,
                    on_card=work.on_card,
                    packed=packed,
                    scored=True,
                )
            )
            static = {**static, TRUNK: before + min(memory, kept)}
            found.moments.append(Moment("trunk", {**static, TEMPORARY: work.trunk(wide).peak}, wide))
        return static

    def trained(
        self, name: str, static: Mapping[str, float], traced: Traced, shape: Shape, *, head: bool = True
    ) -> Moment:
        """An update: what its forward pass keeps, and temporary memory."""
        rest = max(0.0, traced.peak - traced.kept)
        chunk = min(self._chunk, rest) if head else 0.0
        held = _ALLOCATOR_SHARE * traced.peak
        parts = {ACTIVATIONS: traced.kept, CHUNK: chunk, TEMPORARY: rest - chunk, ALLOCATOR: held}
        return Moment(name, {**static, **parts}, shape)

    def looked(
        self, name: str, static: Mapping[str, float], looked: Traced, trunk: Traced, shape: Shape, *, head: bool = True
    ) -> Moment:
        """Passes without gradients: a held-out loss, or scoring."""
        peak = max(looked.peak, trunk.peak)
        chunk = min(self._chunk, peak) if head else 0.0
        parts = {GRADIENTS: 0.0, CHUNK: chunk, TEMPORARY: peak - chunk}
        return Moment(name, {**static, **parts}, shape)

    def sampled(
        self,
        found: Footprint,
        static: Mapping[str, float],
        prompts: Lengths,
        responses: int,
        batch_size: int,
        limit: int,
        *,
        times: int = 1,
        by_servers: bool = False,
    ) -> float:
        """Sampling: processing the prompts, then token after token with the cache; servers have both elsewhere.

        Returns the bytes that a GPU keeps until the next call (`CapturedWriter`).
        """
        rows, longest = min(batch_size, responses), max(prompts.prompts)
        shape = Shape(rows, longest, rows)
        captured = self.work.captures and self.settings.model.capture_decoding != "off"
        read, step = self.work.generation(rows, longest, limit, captured=captured)
        packed = self.work.packed_bytes if self.settings.model.packed_decoding and not by_servers else 0.0
        still = {**static, GRADIENTS: 0.0, PACKED: packed}
        cache = min(step.kept, read.peak)
        parts = {CACHE: step.kept, TEMPORARY: step.peak, ALLOCATOR: _ALLOCATOR_SHARE * step.kept}
        if by_servers:
            parts, found.by_servers = {}, True
        else:
            reading = {CACHE: cache, TEMPORARY: read.peak - cache}
            found.moments.append(Moment("reading prompts", {**still, **reading}, shape))
        found.moments.append(Moment("sampling", {**still, **parts}, shape))
        found.compute("forward", read, shape, tokens_of(prompts) / prompts.count * responses * times)
        found.decode(step, rows, float(responses * limit * times))
        keeps = captured and not by_servers and step.kept <= KEPT_SHARE * self.card_bytes
        return step.kept if keeps else 0.0

    def stepped(self, found: Footprint, static: Mapping[str, float], trained: float, largest_weight: float) -> None:
        """Adam's step needs two copies of a weight; a checkpoint's bytes are built in memory before they are
        written."""
        shape, moments = Shape(1, 1, 1), 2 * _FLOAT32 * trained  # which off-load returns for the step alone
        step = {**static, MOMENTS: moments, TEMPORARY: 2 * _FLOAT32 * largest_weight}
        found.moments.append(Moment("optimizer step", step, shape))
        found.moments.append(
            Moment("checkpoint", {**static, GRADIENTS: 0.0, TEMPORARY: 2 * 3 * _FLOAT32 * trained}, shape)
        )

    def scorers(self) -> int:
        """The number of scoring reward models: the members of an ensemble, and a witness."""
        reward = self.settings.reward
        averaged = reward.ensemble.combine == AVERAGE
        return (1 if averaged else reward.ensemble.members) + reward.witness


def tokens_of(lengths: Lengths) -> float:
    """Tokens of all records, extrapolated from the sampled ones."""
    return sum(sum(record) for record in lengths.sampled) * lengths.scale
