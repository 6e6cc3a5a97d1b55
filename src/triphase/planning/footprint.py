"""How much memory and how many operations each phase takes, by part, before it runs.

A phase has moments (an update, sampling, scoring, …) that do not coincide; its peak is the greatest of them. All of it
follows from settings, the model's configuration and the lengths of the records.
"""

from collections.abc import Mapping
from functools import partial

import torch

from triphase.models.tracing import Traced
from triphase.phases.heldout import EVALUATIONS_PER_PHASE
from triphase.planning.microbatches import Shape, Work
from triphase.planning.moments import (
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
    PROCESS,
    TEMPORARY,
    TRUNK,
    Footprint,
    Moment,
)
from triphase.planning.workload import Lengths, Workload, largest, shapes_of
from triphase.settings.phases import AVERAGE
from triphase.settings.ppo import PPOSettings
from triphase.settings.schema import RunSettings

# Freed memory that the C library has in pieces too small to use again, as a share of what comes and goes in training,
# and of the cache in sampling, whose rows leave and join: 0.33 to 0.9 was measured with glibc (docs/performance.md).
_ALLOCATOR_SHARE = 0.5
# oneDNN compiles a product for each shape of bfloat16 operands on a processor and keeps up to 1,024 of them.
_COMPILED_BYTES = 80e6
_FLOAT32 = 4.0
# Of the rankings, what a member of an ensemble trains on (1 − 1/e).
_REWARD_SHARE = 0.63


class Planner:
    """Footprints of the phases of one run."""

    def __init__(self, settings: RunSettings, work: Work, load: Workload, *, process_bytes: float) -> None:
        self.settings = settings
        self.work = work
        self.load = load
        self.process_bytes = process_bytes
        self._chunk = work.head_chunk()

    def footprints(self) -> list[Footprint]:
        """Every phase that has something to read."""
        load, found = self.load, []
        if load.demonstrations.count:
            found.append(self.sft())
        if load.prompts.count and self.settings.labeling.source != "none":
            found.append(self.sampling())
        if load.groups.count:
            found.append(self.reward())
        if load.prompts.count:
            found += [self.ppo(arm) for arm in (None, *self.settings.arms)]
        if load.heldout_prompts.count:
            found.append(self.evaluation())
        return found

    def sft(self) -> Footprint:
        """Phase 1."""
        settings, work, load = self.settings.sft, self.work, self.load
        found, whole, lengths = Footprint("sft"), settings.method == "full", load.demonstrations
        trained = work.base_numbers if whole else work.adapter_numbers
        static = self._static(adapters=1, trained=trained)
        tokens_at_once = settings.microbatch_tokens
        shapes = list(shapes_of(lengths, batch_size=settings.batch_size, max_tokens=tokens_at_once))
        shape = largest(shapes)
        several = len(shapes) > -(-len(lengths.sampled) // settings.batch_size)
        traced = work.policy(shape, train=True, whole=whole, again=several)
        if not whole:
            visits = load.visits / lengths.count
            static = self._with_trunk(found, static, lengths, visits, shape, tokens_at_once, packed=False)
        held = load.heldout_demonstrations
        if held.count:
            wide = largest(shapes_of(held, batch_size=held.count, max_tokens=tokens_at_once))
            if not whole:
                static = self._with_trunk(
                    found, static, held, EVALUATIONS_PER_PHASE, wide, tokens_at_once, packed=False
                )
            looked = work.policy(wide, train=False, whole=whole)
            found.moments.append(self._looked("held-out loss", static, looked, Traced(0.0), wide))
            found.compute("forward", looked, wide, EVALUATIONS_PER_PHASE * _tokens(held))
        # With one microbatch a step, the gradients come into being while the activations go.
        before = static if several else {**static, GRADIENTS: 0.0}
        found.moments.append(self._trained("update", before, traced, shape))
        tokens = sum(each.tokens for each in shapes) / len(lengths.sampled) * load.visits
        found.compute("training", traced, shape, tokens)
        self._stepped(found, static, trained, work.largest_numbers if whole else 0)
        return found

    def sampling(self) -> Footprint:
        """Responses for people to rank."""
        settings, found = self.settings.sampling, Footprint("sampling")
        prompts = Lengths(
            [*self.load.prompts.sampled, *self.load.heldout_prompts.sampled],
            self.load.prompts.count + self.load.heldout_prompts.count,
        )
        static = self._static(adapters=1, trained=0)
        responses = prompts.count * settings.responses_per_prompt
        self._sampled(found, static, prompts, responses, settings.batch_size, settings.max_response_tokens)
        return found

    def reward(self) -> Footprint:
        """Phase 2."""
        settings, work, groups = self.settings.reward, self.work, self.load.groups
        found, packs = Footprint("reward"), work.packs
        rows = groups if packs else groups.flat()
        size = settings.batch_size if packs else settings.batch_size * round(rows.count / groups.count)

        def shapes_for(count: int) -> list[Shape]:
            limit = settings.microbatch_tokens
            return list(shapes_of(rows, batch_size=count, max_tokens=limit, packed=packs, scored=True))

        several = _REWARD_SHARE * settings.ensemble.members if settings.ensemble.members > 1 else 1.0
        passes = several if not settings.witness else (several + 1) / 2  # each on half of the rankings
        static = self._static(adapters=1 + settings.ensemble.members + settings.witness, trained=work.adapter_numbers)
        shapes = shapes_for(size)
        shape, wide = largest(shapes), largest(shapes_for(len(rows.sampled)))
        fits = float(settings.head_penalty is not None)
        static = self._with_trunk(
            found, static, rows, settings.epochs + fits, wide, settings.microbatch_tokens, packed=packs
        )
        traced = work.reward(shape, train=True)
        found.moments.append(self._trained("update", static, traced, shape, head=False))
        tokens = sum(each.tokens for each in shapes) * rows.scale
        found.compute("training", traced, shape, tokens * settings.epochs * passes)
        looked = work.reward(wide, train=False)
        found.moments.append(self._looked("scoring", static, looked, work.trunk(wide), wide, head=False))
        found.compute("forward", looked, wide, tokens * (fits + 1))
        self._stepped(found, static, work.adapter_numbers, 0)
        return found

    def ppo(self, arm: str | None) -> Footprint:
        """Phase 3, or an arm of it."""
        settings, work = self.settings.ppo_of(arm), self.work
        found = Footprint("ppo" if arm is None else f"arms/{arm}")
        critics, whole = int(settings.critic == "adapter"), settings.method == "full"
        trained = (work.base_numbers if whole else work.adapter_numbers) + critics * work.adapter_numbers
        static = self._static(adapters=2 + self._scorers() + critics, trained=trained)
        if whole:  # the policy is a copy of the base, with the reference's adapter on it
            static[BASE] += work.base_bytes
        prompts, limit = self.load.prompts, settings.max_response_tokens
        episodes = settings.batch_size * settings.iterations
        self._sampled(found, static, prompts, episodes, settings.batch_size, limit)
        share = settings.responses_per_prompt if work.packs else 1  # episodes in a row
        rollout = prompts.answered(settings.responses_per_prompt, [limit])
        rollout = rollout if share > 1 else rollout.flat()
        shape = self._ppo_shape(rollout, settings, share)
        # Boundary states of a whole rollout, padded to its longest row.
        longest = max(sum(record) for record in rollout.sampled)
        static = {**static, TRUNK: work.boundary_bytes(settings.batch_size // share * longest)}
        tokens = _tokens(rollout) / rollout.count * episodes / share
        trunk = work.trunk(shape)
        acting = partial(work.policy, shape, with_values=settings.has_critic)
        upper = acting(train=False, with_entropy=True)
        scored = acting(train=False, with_entropy=True, whole=True) if whole else upper
        found.moments.append(self._looked("scoring", static, scored, trunk, shape))
        # The policy and its reference; the reward model, and a critic with an adapter of its own.
        found.compute("forward", trunk + scored * 2 + upper * (self._scorers() + critics), shape, tokens)
        traced = acting(train=True, with_entropy=settings.entropy_coefficient > 0, whole=whole)
        if critics:  # both passes are kept for one backward pass
            second = work.reward(shape, train=True)
            peak = max(traced.peak, traced.kept + second.peak)
            traced = Traced(peak, traced.kept + second.kept, traced.flops + second.flops)
        found.moments.append(self._trained("update", static, traced, shape))
        found.compute("training", traced, shape, tokens * settings.epochs)
        self._stepped(found, static, trained, work.largest_numbers if whole else 0)
        return found

    def evaluation(self) -> Footprint:
        """Responses of each policy to held-out prompts, and their scores."""
        settings, work, prompts = self.settings, self.work, self.load.heldout_prompts
        found, static = Footprint("evaluation"), self._static(adapters=2 + self._scorers(), trained=0)
        asked = min(prompts.count, settings.evaluation.max_prompts or prompts.count)
        responses, limit = asked * settings.evaluation.samples_per_prompt, settings.ppo.max_response_tokens
        policies = 2 + len(settings.arms)
        if settings.trains_whole:  # a policy with weights of its own beside the base
            static[BASE] += self.work.base_bytes
        self._sampled(found, static, prompts, responses, settings.sampling.batch_size, limit, times=policies)
        answered = prompts.answered(1, [limit]).repeated(responses)
        tokens = settings.ppo.microbatch_tokens
        shape = largest(shapes_of(answered, batch_size=responses, max_tokens=tokens))
        looked, trunk = work.policy(shape, train=False), work.trunk(shape)
        found.moments.append(self._looked("scoring", static, looked, trunk, shape))
        found.compute("forward", trunk * 2 + looked * (2 + self._scorers()), shape, _tokens(answered) * policies)
        return found

    def _scorers(self) -> int:
        """How many reward models score: the members of an ensemble, and a witness."""
        reward = self.settings.reward
        averaged = reward.ensemble.combine == AVERAGE
        return (1 if averaged else reward.ensemble.members) + reward.witness

    def _static(self, *, adapters: int, trained: float) -> dict[str, float]:
        """What is there at every moment of a phase."""
        return {
            PROCESS: self.process_bytes,
            KERNELS: _COMPILED_BYTES if self.process_bytes and self.work.dtype is torch.bfloat16 else 0.0,
            BASE: self.work.base_bytes,
            ADAPTERS: _FLOAT32 * adapters * self.work.adapter_numbers,
            HEADS: _FLOAT32 * (1 + self.settings.has_critic) * (self.work.hidden_size + 1),
            GRADIENTS: _FLOAT32 * trained,
            MOMENTS: 2 * _FLOAT32 * trained,
        }

    def _with_trunk(
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
        """``static`` with the boundary states that are kept in memory; what does not fit is in a file, or computed."""
        work, adapters = self.work, self.settings.adapters
        if not work.trunk_layers:
            return static
        traced, tokens = work.trunk(shape), _tokens(lengths)
        size, before = work.boundary_bytes(tokens), static.get(TRUNK, 0.0)
        memory = min(size, max(0.0, adapters.trunk_cache_gb * 1e9 - before))
        kept = min(size, memory + adapters.trunk_file_gb * 1e9) if visits > 1 else 0.0
        found.compute("forward", traced, shape, tokens * (kept / size + (1 - kept / size) * visits))
        if kept:
            wide = largest(
                shapes_of(lengths, batch_size=len(lengths.sampled), max_tokens=max_tokens, packed=packed, scored=True)
            )
            static = {**static, TRUNK: before + min(memory, kept)}
            found.moments.append(Moment("trunk", {**static, TEMPORARY: work.trunk(wide).peak}, wide))
        return static

    def _trained(
        self, name: str, static: Mapping[str, float], traced: Traced, shape: Shape, *, head: bool = True
    ) -> Moment:
        rest = max(0.0, traced.peak - traced.kept)
        chunk = min(self._chunk, rest) if head else 0.0
        held = _ALLOCATOR_SHARE * traced.peak
        parts = {ACTIVATIONS: traced.kept, CHUNK: chunk, TEMPORARY: rest - chunk, ALLOCATOR: held}
        return Moment(name, {**static, **parts}, shape)

    def _looked(
        self, name: str, static: Mapping[str, float], looked: Traced, trunk: Traced, shape: Shape, *, head: bool = True
    ) -> Moment:
        peak = max(looked.peak, trunk.peak)
        chunk = min(self._chunk, peak) if head else 0.0
        parts = {GRADIENTS: 0.0, CHUNK: chunk, TEMPORARY: peak - chunk}
        return Moment(name, {**static, **parts}, shape)

    def _sampled(
        self,
        found: Footprint,
        static: Mapping[str, float],
        prompts: Lengths,
        responses: int,
        batch_size: int,
        limit: int,
        *,
        times: int = 1,
    ) -> None:
        """Sampling: reading the prompts, then token after token beside the cache."""
        rows, longest = min(batch_size, responses), max(prompts.prompts)
        shape = Shape(rows, longest, rows)
        read, step = self.work.generation(rows, longest, limit)
        still = {**static, GRADIENTS: 0.0}
        cache = min(step.kept, read.peak)
        found.moments.append(Moment("reading prompts", {**still, CACHE: cache, TEMPORARY: read.peak - cache}, shape))
        parts = {CACHE: step.kept, TEMPORARY: step.peak, ALLOCATOR: _ALLOCATOR_SHARE * step.kept}
        found.moments.append(Moment("sampling", {**still, **parts}, shape))
        found.compute("forward", read, shape, _tokens(prompts) / prompts.count * responses * times)
        found.flops["decoding"] = found.flops.get("decoding", 0.0) + step.flops / rows * responses * limit * times

    def _stepped(self, found: Footprint, static: Mapping[str, float], trained: float, largest_weight: float) -> None:
        """Adam's step holds two copies of a weight; a checkpoint's bytes are made in memory before they are written."""
        shape = Shape(1, 1, 1)
        found.moments.append(Moment("optimizer step", {**static, TEMPORARY: 2 * _FLOAT32 * largest_weight}, shape))
        found.moments.append(
            Moment("checkpoint", {**static, GRADIENTS: 0.0, TEMPORARY: 2 * 3 * _FLOAT32 * trained}, shape)
        )

    def _ppo_shape(self, rollout: Lengths, settings: PPOSettings, share: int) -> Shape:
        """The largest microbatch: minibatches of the longest prompts, whose responses are as long as they may be."""
        rows = settings.minibatch_size // share
        longest = rollout.repeated(rows)
        return largest(shapes_of(longest, batch_size=rows, max_tokens=settings.microbatch_tokens, packed=share > 1))


def _tokens(lengths: Lengths) -> float:
    return sum(sum(record) for record in lengths.sampled) * lengths.scale
