"""A rollout with all that its updates need: log-probabilities, values and scores of the sampled responses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from triphase.batches.order import microbatches, permutation
from triphase.batches.padding import pad_batch
from triphase.batches.sharing import Batch, pad_groups
from triphase.models.policies import AdapterPolicy, Policy
from triphase.models.roles import SharedModel
from triphase.objectives.invariants import require_lengths, require_zero_reference_kl
from triphase.rewards.types import Scores
from triphase.settings.ppo import PPOSettings
from triphase.tokens.encoding import Encoded, EncodedGroup

Minibatch = list[list[int]]
"""The episodes of one optimizer step, divided into microbatches."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """Sampled responses as one batch, with the states of the frozen trunk. B episodes, R response tokens.

    Attributes:
        batch: token ids; the responses to one prompt stand in one row, or in rows of their own.
        boundary: (rows, L, d) trunk states.
        minibatches: the first epoch's minibatches, each a list of microbatches of episode numbers.
        microbatches: the batches of these, in order.
        starts: whether the policy is still the reference.
    """

    batch: Batch
    boundary: Tensor
    minibatches: list[Minibatch]
    microbatches: list[Batch]
    starts: bool

    def parts(self) -> Iterator[tuple[list[int], Batch, Tensor]]:
        """The microbatches of the first epoch: equal shapes give equal bits, so the first ratio is exactly 1."""
        episodes = [episodes for minibatch in self.minibatches for episodes in minibatch]
        for numbers, part in zip(episodes, self.microbatches, strict=True):
            yield numbers, part, _states(self.batch, self.boundary, numbers, part)


@dataclass(frozen=True, slots=True)
class Experience:
    """A rollout with all that its updates need. B episodes, R response tokens.

    Attributes:
        batch: token ids; the responses to one prompt stand in one row, or in rows of their own.
        boundary: (rows, L, d) trunk states.
        minibatches: the first epoch's minibatches, each a list of microbatches of episode numbers.
        logprobs: (B, R) of the rollout policy, by the trainer's own forward pass.
        reference_logprobs, entropy: (B, R).
        values: (B, R) of the critic; None where there is none.
        scores: (B,) of the scorer, before any shaping.
        nonfinite: names of the tensors among these that hold a NaN or an infinity.
        scored: the scores as the scorer gave them, with their parts.
    """

    batch: Batch
    boundary: Tensor
    minibatches: list[Minibatch]
    logprobs: Tensor
    reference_logprobs: Tensor
    values: Tensor | None
    entropy: Tensor
    scores: Tensor
    nonfinite: tuple[str, ...] = ()
    scored: Scores = field(default_factory=lambda: Scores(()))


def open_rollout(
    shared: SharedModel, samples: Sequence[Encoded], settings: PPOSettings, *, seed: int, iteration: int
) -> Rollout:
    """Sampled responses as a batch, with the trunk states that every role reads.

    Raises:
        InvariantError: a mask does not fit its lengths.
    """
    with torch.no_grad():
        batch = _padded(shared, samples, settings)
        require_lengths(batch.response_mask, batch.response_lengths)
        boundary = _trunk(shared, batch, settings)
    minibatches = minibatches_of(batch, settings, seed=seed, iteration=iteration, epoch=0)
    parts = [_part(batch, episodes) for minibatch in minibatches for episodes in minibatch]
    return Rollout(batch, boundary, minibatches, parts, starts=iteration == 0)


def evaluate_rollout(
    shared: SharedModel, rollout: Rollout, scored: Scores, settings: PPOSettings, *, policy: Policy | None = None
) -> Experience:
    """What policy (by default its adapter), critic and reference say of a rollout, as the updates compute it.

    Raises:
        InvariantError: the policy does not start as the reference.
    """
    batch, policy = rollout.batch, policy or AdapterPolicy(shared)
    with torch.no_grad():
        shape = batch.response_mask.shape
        logprobs, reference, entropy = (torch.zeros(shape, device=shared.device) for _ in range(3))
        values = torch.zeros(shape, device=shared.device) if settings.has_critic else None
        for rows, part, states in rollout.parts():
            temperature, width = settings.temperature, int(part.response_lengths.max())
            acting = policy.output(
                part, states, temperature=temperature, with_entropy=True, with_values=values is not None
            )
            assert acting.entropy is not None  # noqa: S101 - asked for above
            logprobs[rows, :width], entropy[rows, :width] = acting.logprobs, acting.entropy
            reference[rows, :width] = policy.reference.logprobs(part, states, temperature=temperature)
            if values is not None and acting.values is not None:
                values[rows, :width] = acting.values
    scores = torch.tensor(scored.total, dtype=torch.float32, device=shared.device)
    figures = {"logprobs": logprobs, "reference_logprobs": reference, "values": values, "scores": scores}
    nonfinite = tuple(
        name for name, tensor in figures.items() if tensor is not None and not bool(torch.isfinite(tensor).all())
    )
    if rollout.starts and not nonfinite:
        require_zero_reference_kl(logprobs, reference, batch.response_mask)
    return Experience(
        batch, rollout.boundary, rollout.minibatches, logprobs, reference, values, entropy, scores, nonfinite, scored
    )


def minibatches_of(batch: Batch, settings: PPOSettings, *, seed: int, iteration: int, epoch: int) -> list[Minibatch]:
    """The episodes of a rollout in the minibatches of one epoch, in an order of its own.

    The episodes of one prompt are in one minibatch, and in one microbatch where they stand in one row.
    """
    lengths, episodes = batch.lengths.tolist(), len(batch.response_lengths)
    times, share = settings.responses_per_prompt, episodes // len(lengths)
    order = permutation(episodes // times, seed, "ppo", "minibatches", iteration, epoch)
    size, found = settings.minibatch_size // times, []
    for start in range(0, len(order), size):
        rows = _expanded(sorted(order[start : start + size]), times // share)
        parts = microbatches([lengths[row] for row in rows], max_tokens=settings.microbatch_tokens)
        found.append([_expanded([rows[index] for index in part], share) for part in parts])
    return found


def rows_of(batch: Batch, boundary: Tensor, episodes: list[int]) -> tuple[Batch, Tensor]:
    """Some episodes, all those of their rows, with the boundary; the rows are cut to their own longest."""
    part = _part(batch, episodes)
    return part, _states(batch, boundary, episodes, part)


def _part(batch: Batch, episodes: list[int]) -> Batch:
    return batch.rows(torch.tensor(_rows(batch, episodes), device=batch.input_ids.device))


def _states(batch: Batch, boundary: Tensor, episodes: list[int], part: Batch) -> Tensor:
    return boundary[_rows(batch, episodes), : part.input_ids.shape[1]]


def _rows(batch: Batch, episodes: list[int]) -> list[int]:
    share = len(batch.response_lengths) // len(batch.input_ids)
    return [episode // share for episode in episodes[::share]]


def _padded(shared: SharedModel, samples: Sequence[Encoded], settings: PPOSettings) -> Batch:
    """The episodes, in order: each prompt once, or (with one response, or under sliding windows) a row for each."""
    pad_id, device, times = shared.template.pad_id, shared.device, settings.responses_per_prompt
    if times == 1 or not shared.backbone.packs:
        return pad_batch(samples, pad_id=pad_id, device=device)
    members = [samples[start : start + times] for start in range(0, len(samples), times)]
    groups = [EncodedGroup(group[0].prompt, tuple(sample.response for sample in group)) for group in members]
    return pad_groups(groups, pad_id=pad_id, device=device)


def _expanded(numbers: Sequence[int], times: int) -> list[int]:
    """The numbers of the parts that things with these numbers have, where each has so many."""
    return [number * times + part for number in numbers for part in range(times)]


def _trunk(shared: SharedModel, batch: Batch, settings: PPOSettings) -> Tensor:
    shape = (*batch.input_ids.shape, shared.backbone.hidden_size)
    boundary = torch.zeros(shape, dtype=shared.backbone.dtype, device=shared.device)
    for rows in microbatches(batch.lengths.tolist(), max_tokens=settings.microbatch_tokens):
        part = batch.rows(torch.tensor(rows, device=shared.device))
        boundary[rows, : part.input_ids.shape[1]] = shared.trunk(part)
    return boundary
