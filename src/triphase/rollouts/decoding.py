"""Sampling in this process: one decode loop with a key-value cache.

Requests are processed in the order of their prompt length, to minimize padding. Finished rows leave the batch, and with
them their cache; if the model allows it, the next prompts take their slots. A token is sampled by inverting the
cumulative distribution at a uniform number drawn from the row's own seed: no sort, one temporary of (vocabulary, rows).
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from weakref import WeakSet

import torch
from torch import Tensor

from triphase.errors import ModelError
from triphase.models.direct import FastDecoder
from triphase.models.products import multiply
from triphase.models.roles import SharedModel
from triphase.models.stepping import Stepper
from triphase.rollouts.graphs import CudaGraphs
from triphase.rollouts.types import Generated, Request
from triphase.rollouts.writing import CapturedWriter

# Rows are dropped from the batch once this share of it is finished: dropping copies the cache.
_COMPACT_SHARE = 0.25
_noted: WeakSet[SharedModel] = WeakSet()  # models for which the reason against capture was logged
_log = logging.getLogger(__name__)


class LocalGenerator:
    """Samples from one adapter of the shared model.

    Attributes:
        adapter: the adapter that samples; None is the bare base.
        batch_size: responses that are sampled together.
    """

    def __init__(self, shared: SharedModel, *, adapter: str | None, batch_size: int) -> None:
        self._shared = shared
        self.adapter = adapter
        self.batch_size = batch_size
        self._writer: CapturedWriter | None = None

    def release(self) -> None:
        """Release what is kept on a GPU between two calls."""
        if self._writer is not None:
            self._writer.release()

    @torch.no_grad()
    def generate(
        self,
        requests: Sequence[Request],
        *,
        temperature: float,
        max_response_tokens: int,
        on_finished: Callable[[int], None] | None = None,
    ) -> list[Generated]:
        """One response for each request, in order. ``on_finished`` gets the number of newly finished ones."""
        stepper = self._shared.stepper(self.adapter)
        with self._shared.role(self.adapter):
            if requests and self._captures(stepper):
                if self._writer is None:
                    self._writer = CapturedWriter(
                        self._shared, choose=sample, draws=_draws, record=CudaGraphs(), on_failure=self._go_without
                    )
                written = self._writer.write(
                    requests,
                    batch_size=self.batch_size,
                    temperature=temperature,
                    limit=max_response_tokens,
                    on_finished=on_finished,
                )
            else:
                written = self._write(stepper, requests, temperature, max_response_tokens, on_finished)
        return [Generated(tuple(ids), ids[-1] in self._shared.template.ends) for ids in written]

    def _captures(self, stepper: Stepper) -> bool:
        """Whether the step is captured: on a GPU, unless something prevents it, which is then logged once."""
        if self._shared.loaded.capture_decoding == "off" or not _is_card(self._shared.device):
            return False
        if isinstance(stepper, FastDecoder):
            return True
        self._go_without(
            f"the layers of {type(self._shared.backbone.model).__name__} are not of the Llama, "
            f"Mistral or Qwen type, or are sharded among processes"
        )
        return False

    def _go_without(self, reason: str) -> None:
        """Log once per model why its step is not captured.

        Raises:
            ModelError: a capture is required.
        """
        if self._shared.loaded.capture_decoding == "on":
            raise ModelError(
                f"model.capture_decoding is on, but the step cannot be captured ({reason}); set it to auto"
            )
        if self._shared not in _noted:
            _noted.add(self._shared)
            _log.warning("tokens are generated without CUDA graphs: the step is not captured (%s)", reason)

    def _write(
        self,
        stepper: Stepper,
        requests: Sequence[Request],
        temperature: float,
        limit: int,
        on_finished: Callable[[int], None] | None,
    ) -> list[list[int]]:
        shared = self._shared
        ends, pad_id, head = shared.template.ends, shared.template.pad_id, shared.backbone.head_weight
        waiting = deque(sorted(range(len(requests)), key=lambda index: (len(requests[index].prompt), index)))
        responses: list[list[int]] = [[] for _ in requests]
        uniforms: dict[int, list[float]] = {}
        rows: list[int] = []  # rows[i] is the request of row i of the batch

        def is_done(row: int) -> bool:
            return len(responses[row]) == limit or (bool(responses[row]) and responses[row][-1] in ends)

        while rows or waiting:
            # 1. prompts take the free slots
            if waiting and (not rows or (stepper.joins and _is_small(rows, self.batch_size))):
                new = [waiting.popleft() for _ in range(min(len(waiting), self.batch_size - len(rows)))]
                read = stepper.join if rows else stepper.read
                read([requests[row].prompt for row in new], pad_id=pad_id, room=limit)
                uniforms |= {row: _uniforms(requests[row].seed, limit) for row in new}
                rows += new
            # 2. one token for each unfinished row
            drawn = [0.0 if is_done(row) else uniforms[row][len(responses[row])] for row in rows]
            logits = shared.backbone.logits(multiply(head, stepper.hidden.t()).t())
            if shared.absent is not None:
                logits.index_fill_(1, shared.absent, -math.inf)
            uniform = torch.tensor(drawn, dtype=torch.float64).to(logits.device)
            tokens = sample(logits, temperature, uniform)
            finished = 0
            for row, token in zip(rows, tokens.tolist(), strict=True):
                if not is_done(row):
                    responses[row].append(token)
                    finished += is_done(row)
            if finished and on_finished is not None:
                on_finished(finished)
            # 3. finished rows leave, the others process their token
            alive = [place for place, row in enumerate(rows) if not is_done(row)]
            if not alive:
                rows = []
                continue
            if _is_small(alive, len(rows)):
                stepper.keep(alive)
                tokens = tokens[alive]
                rows = [rows[place] for place in alive]
            stepper.step(tokens)
        return responses


def _is_card(device: torch.device) -> bool:
    return device.type == "cuda"


def _is_small(rows: Sequence[int], places: int) -> bool:
    return len(rows) <= (1 - _COMPACT_SHARE) * places


def sample(logits: Tensor, temperature: float, uniform: Tensor) -> Tensor:
    """Draw one token per row by inversion: the first index whose cumulative probability exceeds ``uniform``.

    The distribution is summed in blocks of the vocabulary: a block is drawn, then a token of it. That is one pass of
    sums where a cumulative sum over the whole would be a chain of as many additions as there are tokens.

    Args:
        logits: (B, V), any float type; the transpose of a contiguous (V, B) is the fastest.
        temperature: above 0.
        uniform: (B,) in [0, 1).

    Returns:
        (B,) token ids.
    """
    rows, vocabulary = logits.shape
    size = math.isqrt(vocabulary - 1) + 1
    count = -(-vocabulary // size)
    weights = torch.empty((count * size, rows), dtype=torch.float32, device=logits.device)
    shifted = weights[:vocabulary]
    shifted.copy_(logits.t())
    shifted.sub_(shifted.amax(dim=0)).div_(temperature).exp_()  # down the columns: along bfloat16 rows it is far slower
    weights[vocabulary:] = 0.0
    blocks = weights.view(count, size, rows)
    outer = blocks.sum(dim=1).double().cumsum(dim=0)
    block = _first_above(outer, uniform.double() * outer[-1])
    before = torch.where(block > 0, outer.gather(0, (block - 1).clamp(min=0)[None])[0], 0.0)
    inner = blocks[block, :, torch.arange(rows, device=logits.device)].t().double().cumsum(dim=0)
    return block * size + _first_above(inner, uniform.double() * outer[-1] - before)


def _first_above(cumulative: Tensor, threshold: Tensor) -> Tensor:
    """(N, B) rising sums, (B,) → (B,) the first index whose sum is above the threshold, or, if rounding puts the
    threshold at the total or beyond, the last one that adds to the sum: the indices after it have no probability."""
    total = cumulative[-1]
    bounded = torch.minimum(threshold, total.nextafter(torch.zeros_like(total)))
    return (cumulative <= bounded).sum(dim=0)


def _draws(seed: int, count: int) -> Tensor:
    """(count,) uniform numbers of one seed, the same on every device."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _uniforms(seed: int, count: int) -> list[float]:
    drawn: list[float] = _draws(seed, count).tolist()
    return drawn
