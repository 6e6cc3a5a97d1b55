"""A rollout with all that its updates need: log-probabilities, values and scores of the sampled responses."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from triphase.batches.order import microbatches, permutation
from triphase.batches.padding import TokenBatch, pad_batch
from triphase.models.roles import POLICY, REFERENCE, SharedModel
from triphase.objectives.invariants import require_lengths, require_zero_reference_kl
from triphase.settings.schema import PPOSettings
from triphase.tokens.encoding import Encoded

Minibatch = list[list[int]]
"""The rows of one optimizer step, divided into microbatches."""


@dataclass(frozen=True, slots=True)
class Experience:
    """A rollout with all that its updates need. B episodes, R response tokens.

    Attributes:
        batch: token ids. boundary: (B, L, d) trunk states.
        minibatches: the first epoch's minibatches, each a list of microbatches of row numbers.
        logprobs: (B, R) of the rollout policy, by the trainer's own forward pass.
        reference_logprobs, values, entropy: (B, R).
        scores: (B,) of the reward model, calibrated (or of another scorer, as they are), before any shaping.
        nonfinite: names of the tensors among these that hold a NaN or an infinity.
    """

    batch: TokenBatch
    boundary: Tensor
    minibatches: list[list[list[int]]]
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
        batch = pad_batch(samples, pad_id=shared.template.pad_id, device=shared.device)
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


def minibatches_of(
    batch: TokenBatch, settings: PPOSettings, *, seed: int, iteration: int, epoch: int
) -> list[Minibatch]:
    """The rows of a rollout in the minibatches of one epoch, in an order of its own."""
    lengths = batch.lengths.tolist()
    order = permutation(len(lengths), seed, "ppo", "minibatches", iteration, epoch)
    found = []
    for start in range(0, len(order), settings.minibatch_size):
        rows = sorted(order[start : start + settings.minibatch_size])
        parts = microbatches([lengths[row] for row in rows], max_tokens=settings.microbatch_tokens)
        found.append([[rows[index] for index in part] for part in parts])
    return found


def rows_of(batch: TokenBatch, boundary: Tensor, rows: list[int]) -> tuple[TokenBatch, Tensor]:
    """Some rows of a batch with their boundary, cut to their own longest."""
    part = batch.rows(torch.tensor(rows, device=batch.input_ids.device))
    return part, boundary[rows, : part.input_ids.shape[1]]


def _trunk(shared: SharedModel, batch: TokenBatch, settings: PPOSettings) -> Tensor:
    shape = (*batch.input_ids.shape, shared.backbone.hidden_size)
    boundary = torch.zeros(shape, dtype=shared.backbone.dtype, device=shared.device)
    for rows in microbatches(batch.lengths.tolist(), max_tokens=settings.microbatch_tokens):
        part = batch.rows(torch.tensor(rows, device=shared.device))
        boundary[rows, : part.input_ids.shape[1]] = shared.trunk(part)
    return boundary
