"""A rollout with all that its updates need: log-probabilities, values and scores of the sampled responses."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from triphase.batches.order import microbatches, permutation
from triphase.batches.padding import pad_batch
from triphase.batches.sharing import Batch, pad_groups
from triphase.models.roles import POLICY, REFERENCE, SharedModel
from triphase.objectives.invariants import require_lengths, require_zero_reference_kl
from triphase.settings.schema import PPOSettings
from triphase.tokens.encoding import Encoded, EncodedGroup

Minibatch = list[list[int]]
"""The episodes of one optimizer step, divided into microbatches."""


@dataclass(frozen=True, slots=True)
class Experience:
    """A rollout with all that its updates need. B episodes, R response tokens.

    Attributes:
        batch: token ids; the responses to one prompt stand in one row, or in rows of their own.
        boundary: (rows, L, d) trunk states.
        minibatches: the first epoch's minibatches, each a list of microbatches of episode numbers.
        logprobs: (B, R) of the rollout policy, by the trainer's own forward pass.
        reference_logprobs, values, entropy: (B, R).
        scores: (B,) of the reward model, calibrated (or of another scorer, as they are), before any shaping.
        nonfinite: names of the tensors among these that hold a NaN or an infinity.
    """

    batch: Batch
    boundary: Tensor
    minibatches: list[Minibatch]
    logprobs: Tensor
    reference_logprobs: Tensor
    values: Tensor
    entropy: Tensor
    scores: Tensor
    nonfinite: tuple[str, ...] = ()


def evaluate_rollout(
    shared: SharedModel,
    samples: Sequence[Encoded],
    settings: PPOSettings,
    *,
    seed: int,
    iteration: int,
    scores: Sequence[float] | None = None,
) -> Experience:
    """What policy, critic, reference and reward model say of a rollout, by the forward pass that the updates use.

    ``scores`` are those of another scorer; the reward model is not asked then.

    Raises:
        InvariantError: a mask does not fit its lengths, or the policy does not start as the reference.
    """
    with torch.no_grad():
        batch = _padded(shared, samples, settings)
        require_lengths(batch.response_mask, batch.response_lengths)
        boundary = _trunk(shared, batch, settings)
        # The microbatches are those of the first epoch: equal shapes give equal bits, so the first ratio is exactly 1.
        minibatches = minibatches_of(batch, settings, seed=seed, iteration=iteration, epoch=0)
        shape = batch.response_mask.shape
        logprobs, reference, values, entropy = (torch.zeros(shape, device=shared.device) for _ in range(4))
        scored = torch.zeros(shape[0], device=shared.device)
        if scores is not None:
            scored = torch.tensor(scores, dtype=torch.float32, device=shared.device)
        for rows in (rows for minibatch in minibatches for rows in minibatch):
            part, states = rows_of(batch, boundary, rows)
            temperature, width = settings.temperature, int(part.response_lengths.max())
            policy = shared.policy_output(
                part, states, adapter=POLICY, temperature=temperature, with_entropy=True, with_values=True
            )
            frozen = shared.policy_output(part, states, adapter=REFERENCE, temperature=temperature)
            assert policy.values is not None and policy.entropy is not None  # noqa: S101 - asked for above
            logprobs[rows, :width], reference[rows, :width] = policy.logprobs, frozen.logprobs
            values[rows, :width], entropy[rows, :width] = policy.values, policy.entropy
            if scores is None:
                scored[rows] = shared.scores(part, states)
    figures = {"logprobs": logprobs, "reference_logprobs": reference, "values": values, "scores": scored}
    nonfinite = tuple(name for name, tensor in figures.items() if not bool(torch.isfinite(tensor).all()))
    if iteration == 0 and not nonfinite:
        require_zero_reference_kl(logprobs, reference, batch.response_mask)
    return Experience(batch, boundary, minibatches, logprobs, reference, values, entropy, scored, nonfinite)


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
    share = len(batch.response_lengths) // len(batch.input_ids)
    rows = [episode // share for episode in episodes[::share]]
    part = batch.rows(torch.tensor(rows, device=batch.input_ids.device))
    return part, boundary[rows, : part.input_ids.shape[1]]


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
