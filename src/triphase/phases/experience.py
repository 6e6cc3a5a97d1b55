"""A rollout with all that its updates need: log-probabilities, values and scores of the sampled responses."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from triphase.batches.order import microbatches, permutation
from triphase.batches.padding import pad_batch
from triphase.batches.sharing import Batch, pad_groups
from triphase.batches.transfers import index_on, to_device
from triphase.models.policies import AdapterPolicy, Policy, Reference
from triphase.models.roles import SharedModel
from triphase.objectives.invariants import require_lengths, require_zero_reference_kl
from triphase.phases.trunk_states import TrunkStates
from triphase.rewards.types import Scores
from triphase.settings.ppo import PPOSettings
from triphase.tokens.encoding import Encoded, EncodedGroup
from triphase.training.distributed.types import ALONE, Strategy

Minibatch = list[list[int]]
"""The episodes of one optimizer step on this rank, divided into microbatches."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """Sampled responses as one batch, with the hidden states of the frozen trunk. B episodes, R response tokens.

    Attributes:
        batch: token ids; the responses to one prompt are packed into one row, or each has its own row.
        boundary: trunk states of the rows that this rank computes in any epoch.
        owners: the rank of each row, in the first epoch.
        minibatches: the first epoch's minibatches, each a list of microbatches of episode numbers.
        microbatches: the batches of these, in order.
        starts: whether the policy is still the reference.
    """

    batch: Batch
    boundary: TrunkStates
    owners: list[int]
    minibatches: list[Minibatch]
    microbatches: list[Batch]
    starts: bool

    def parts(self) -> Iterator[tuple[list[int], Batch, Tensor]]:
        """The microbatches of the first epoch: equal shapes give equal bits, so the first ratio is exactly 1."""
        episodes = [episodes for minibatch in self.minibatches for episodes in minibatch]
        for numbers, part in zip(episodes, self.microbatches, strict=True):
            yield numbers, part, self.boundary.of(_rows(self.batch, numbers), part.input_ids.shape[1])


@dataclass(frozen=True, slots=True)
class Experience:
    """A rollout with all that its updates need. B episodes, R response tokens.

    Attributes:
        batch: token ids; the responses to one prompt are packed into one row, or each has its own row.
        boundary: trunk states of the rows that this rank computes in any epoch.
        minibatches: the first epoch's minibatches, each a list of microbatches of episode numbers.
        logprobs: (B, R) of the rollout policy, by the trainer's own forward pass.
        reference_logprobs, entropy: (B, R).
        values: (B, R) of the critic; None without a critic.
        scores: (B,) of the scorer, before any shaping.
        nonfinite: names of the tensors among these that contain a NaN or an infinity.
        scored: the scores as the scorer returned them, with their parts.
        owners: the rank of each row, in the first epoch; empty for a single process.
        penalty_logprobs: (B, R) of the reference of the KL penalty, if it has been reset.
    """

    batch: Batch
    boundary: TrunkStates
    minibatches: list[Minibatch]
    logprobs: Tensor
    reference_logprobs: Tensor
    values: Tensor | None
    entropy: Tensor
    scores: Tensor
    nonfinite: tuple[str, ...] = ()
    scored: Scores = field(default_factory=lambda: Scores(()))
    owners: list[int] = field(default_factory=list)
    penalty_logprobs: Tensor | None = None

    @property
    def counted_from(self) -> Tensor:
        """(B, R) log-probabilities of the reference of the KL penalty."""
        return self.reference_logprobs if self.penalty_logprobs is None else self.penalty_logprobs


def open_rollout(
    shared: SharedModel,
    samples: Sequence[Encoded],
    settings: PPOSettings,
    *,
    seed: int,
    iteration: int,
    starts: bool | None = None,
    trunk: Tensor | None = None,
    strategy: Strategy = ALONE,
) -> Rollout:
    """Sampled responses as a batch, with the trunk states that every role uses.

    ``starts`` says whether the policy is still the reference; by default at iteration 0. ``trunk`` are the states of
    each sample if sampling computed them.

    Raises:
        InvariantError: a mask does not fit its lengths.
    """
    with torch.no_grad():
        batch = _padded(shared, samples, settings)
        require_lengths(batch.response_mask, to_device(batch.response_lengths, shared.device))
    orders = {"seed": seed, "iteration": iteration}
    owners = _owners(batch, _rows_of_steps(batch, settings, **orders, epoch=0), strategy)
    shares = [
        minibatches_of(batch, settings, strategy=strategy, owners=owners, **orders, epoch=epoch)
        for epoch in range(1 if strategy.world == 1 else settings.epochs)  # alone, each epoch has all rows
    ]
    minibatches = shares[0]
    with torch.no_grad():
        if trunk is not None:
            count, length = batch.input_ids.shape
            boundary = TrunkStates.sampled(trunk, samples, len(samples) // count, length)
        else:
            rows = sorted({row for share in shares for row in _rows_in(batch, share)})
            boundary = TrunkStates.for_rows(shared, rows, batch.input_ids.shape[1])
            mine = [row for row, owner in enumerate(owners) if owner == strategy.rank]
            _fill_trunk(shared, batch, boundary, mine, settings)
    parts = [_part(batch, episodes) for minibatch in minibatches for episodes in minibatch]
    return Rollout(batch, boundary, owners, minibatches, parts, starts=iteration == 0 if starts is None else starts)


def evaluate_rollout(
    shared: SharedModel,
    rollout: Rollout,
    scored: Scores,
    settings: PPOSettings,
    *,
    policy: Policy | None = None,
    reset: Reference | None = None,
    strategy: Strategy = ALONE,
) -> Experience:
    """Log-probabilities and values of a rollout under policy (by default its adapter), critic and reference.

    They are computed as in the updates, on each rank for its rows; all ranks get all rows. ``reset`` replaces the
    reference in the KL penalty.

    Raises:
        InvariantError: the policy differs from the reference at the start.
    """
    batch, policy = rollout.batch, policy or AdapterPolicy(shared)
    with torch.no_grad():
        shape = batch.response_mask.shape
        logprobs, reference, entropy = (torch.zeros(shape, device=shared.device) for _ in range(3))
        values = torch.zeros(shape, device=shared.device) if settings.has_critic else None
        penalty = None if reset is None else torch.zeros(shape, device=shared.device)
        for rows, part, states in rollout.parts():
            temperature, width = settings.temperature, int(part.response_lengths.max())
            own = index_on(rows, shared.device)
            acting = policy.output(
                part, states, temperature=temperature, with_entropy=True, with_values=values is not None
            )
            assert acting.entropy is not None  # noqa: S101 - requested above
            logprobs[own, :width], entropy[own, :width] = acting.logprobs, acting.entropy
            reference[own, :width] = policy.reference.logprobs(part, states, temperature=temperature)
            if reset is not None and penalty is not None:
                penalty[own, :width] = reset.logprobs(part, states, temperature=temperature)
            if values is not None and acting.values is not None:
                values[own, :width] = acting.values
        strategy.sum_tensors([logprobs, reference, entropy, *(each for each in (values, penalty) if each is not None)])
    scores = to_device(torch.tensor(scored.total, dtype=torch.float32), shared.device)
    figures = {"logprobs": logprobs, "reference_logprobs": reference, "values": values, "scores": scores}
    there = {name: tensor for name, tensor in figures.items() if tensor is not None}
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in there.values()]).tolist()
    nonfinite = tuple(name for name, is_finite in zip(there, finite, strict=True) if not is_finite)
    if rollout.starts and not nonfinite:
        require_zero_reference_kl(logprobs, reference, batch.response_mask)
    figures_of_all = (logprobs, reference, values, entropy, scores, nonfinite, scored, rollout.owners, penalty)
    return Experience(batch, rollout.boundary, rollout.minibatches, *figures_of_all)


def minibatches_of(
    batch: Batch,
    settings: PPOSettings,
    *,
    seed: int,
    iteration: int,
    epoch: int,
    strategy: Strategy = ALONE,
    owners: Sequence[int] = (),
) -> list[Minibatch]:
    """The minibatches of one epoch over a rollout, in that epoch's own order: this rank's share of each.

    The episodes of one prompt are in one minibatch, and in one microbatch if they share a row. The contents of a
    minibatch do not depend on the number of ranks.
    """
    lengths, found = batch.lengths.tolist(), []
    share = len(batch.response_lengths) // len(lengths)
    for step in _rows_of_steps(batch, settings, seed=seed, iteration=iteration, epoch=epoch):
        theirs = [owners[row] for row in step] if owners else None
        rows = [step[place] for place in strategy.mine([lengths[row] for row in step], theirs)]
        on_card = batch.input_ids.device.type == "cuda"
        parts = microbatches([lengths[row] for row in rows], max_tokens=settings.tokens_at_once, on_card=on_card)
        found.append([_expanded([rows[index] for index in part], share) for part in parts])
    return found


def epochs_of(
    shared: SharedModel,
    experience: Experience,
    settings: PPOSettings,
    *,
    seed: int,
    iteration: int,
    strategy: Strategy = ALONE,
) -> Iterator[Minibatch]:
    """The minibatches of all epochs over a rollout: this rank's share."""
    yield from experience.minibatches
    batch, owners, orders = experience.batch, experience.owners, {"seed": seed, "iteration": iteration}
    for epoch in range(1, settings.epochs):
        minibatches = minibatches_of(batch, settings, **orders, epoch=epoch, strategy=strategy, owners=owners)
        if strategy.world > 1:
            _complete_trunk(shared, experience, minibatches, settings, strategy.rank)
        yield from minibatches


@torch.no_grad()
def _complete_trunk(
    shared: SharedModel, experience: Experience, minibatches: Sequence[Minibatch], settings: PPOSettings, rank: int
) -> None:
    """Compute the trunk states of rows that move to this rank from another one in a later epoch."""
    taken = sorted(_rows_in(experience.batch, minibatches))
    moved = [row for row in taken if experience.owners[row] != rank]
    _fill_trunk(shared, experience.batch, experience.boundary, moved, settings)


def _rows_of_steps(
    batch: Batch, settings: PPOSettings, *, seed: int, iteration: int, epoch: int
) -> Iterator[list[int]]:
    """The rows of each minibatch of an epoch."""
    rows, episodes, times = len(batch.lengths), len(batch.response_lengths), settings.responses_per_prompt
    order = permutation(episodes // times, seed, "ppo", "minibatches", iteration, epoch)
    size = settings.minibatch_size // times
    for start in range(0, len(order), size):
        yield _expanded(sorted(order[start : start + size]), times * rows // episodes)


def _owners(batch: Batch, steps: Iterable[list[int]], strategy: Strategy) -> list[int]:
    """The rank of each row: every minibatch of the first epoch is divided evenly."""
    lengths = batch.lengths.tolist()
    owners = [0] * len(lengths)
    for rows in steps:
        for row, rank in zip(rows, strategy.divided([lengths[row] for row in rows]), strict=True):
            owners[row] = rank
    return owners


def rows_of(batch: Batch, boundary: TrunkStates, episodes: list[int]) -> tuple[Batch, Tensor]:
    """Some episodes (all episodes of their rows), with the boundary; the rows are trimmed to their longest."""
    part = _part(batch, episodes)
    return part, boundary.of(_rows(batch, episodes), part.input_ids.shape[1])


def _part(batch: Batch, episodes: list[int]) -> Batch:
    return batch.rows(torch.tensor(_rows(batch, episodes)))


def _rows(batch: Batch, episodes: list[int]) -> list[int]:
    share = len(batch.response_lengths) // len(batch.input_ids)
    return [episode // share for episode in episodes[::share]]


def _rows_in(batch: Batch, minibatches: Iterable[Minibatch]) -> set[int]:
    return {row for minibatch in minibatches for episodes in minibatch for row in _rows(batch, episodes)}


def _padded(shared: SharedModel, samples: Sequence[Encoded], settings: PPOSettings) -> Batch:
    """The episodes, in order: each prompt once, or (with one response, or under sliding windows) a row for each."""
    pad_id, device, times = shared.template.pad_id, shared.device, settings.responses_per_prompt
    if times == 1 or not shared.backbone.packs:
        return pad_batch(samples, pad_id=pad_id, device=device)
    members = [samples[start : start + times] for start in range(0, len(samples), times)]
    groups = [EncodedGroup(group[0].prompt, tuple(sample.response for sample in group)) for group in members]
    return pad_groups(groups, pad_id=pad_id, device=device)


def _expanded(numbers: Sequence[int], times: int) -> list[int]:
    """The indices of the parts of items with these numbers, if each item has ``times`` parts."""
    return [number * times + part for number in numbers for part in range(times)]


def _fill_trunk(
    shared: SharedModel, batch: Batch, boundary: TrunkStates, wanted: Sequence[int], settings: PPOSettings
) -> None:
    lengths = batch.lengths.tolist()
    most, on_card = settings.tokens_at_once, shared.backbone.on_card
    for group in microbatches([lengths[row] for row in wanted], max_tokens=most, on_card=on_card):
        rows = [wanted[place] for place in group]
        boundary.put(rows, shared.trunk(batch.rows(torch.tensor(rows))))
