"""The gradient of one minibatch: clipped surrogate, value loss and entropy bonus."""

import torch

from triphase.batches.transfers import index_on
from triphase.models.policies import Policy
from triphase.objectives.advantages import Advantages
from triphase.objectives.invariants import require_first_minibatch
from triphase.objectives.proximal import (
    clipped_policy_loss,
    clipped_value_loss,
    composite_objective,
    entropy_bonus,
)
from triphase.phases.experience import Experience, Minibatch, rows_of
from triphase.settings.ppo import PPOSettings
from triphase.training.distributed.types import ALONE, Strategy


def accumulate_gradients(
    policy: Policy,
    minibatch: Minibatch,
    experience: Experience,
    advantages: Advantages,
    settings: PPOSettings,
    *,
    first: bool,
    strategy: Strategy = ALONE,
) -> dict[str, float]:
    """Accumulate the gradient of this rank's part of a minibatch, and return the metrics of the whole.

    Losses are normalized by the tokens of all ranks' parts, so that gradients need only be summed.

    Raises:
        InvariantError: this is the ``first`` minibatch of a rollout, and the policy differs from the rollout policy.
    """
    rows_of_all = [row for rows in minibatch for row in rows]
    tokens = int(strategy.total({"tokens": int(experience.batch.response_lengths[rows_of_all].sum())})["tokens"])
    totals = dict.fromkeys(("ppo/clip_fraction", "ppo/approximate_kl", "ppo/ratio_mean", "ppo/policy_loss"), 0.0)
    if experience.values is not None:
        totals["ppo/value_loss"] = 0.0
    totals["ppo/ratio_max"] = 0.0
    shares: list[float] = []
    figures: list[torch.Tensor] = []  # of each microbatch, on the device until all of them are queued
    for rows in minibatch:
        batch, states = rows_of(experience.batch, experience.boundary, rows)
        mask, width = batch.response_mask, int(batch.response_lengths.max())
        own = index_on(rows, mask.device)
        old = experience.logprobs[own, :width]
        output = policy.output(
            batch,
            states,
            temperature=settings.temperature,
            with_entropy=settings.entropy_coefficient > 0,
            with_values=experience.values is not None,
        )
        if first:
            require_first_minibatch(output.logprobs.detach(), old, mask, tolerance=1e-4)
        policy_loss, moved = clipped_policy_loss(
            output.logprobs,
            old,
            advantages.advantages[own, :width],
            mask,
            clip_range=settings.clip_range,
            token_count=tokens,
        )
        value_loss = torch.zeros((), device=mask.device)
        if experience.values is not None and output.values is not None:
            value_loss, _ = clipped_value_loss(
                output.values,
                experience.values[own, :width],
                advantages.returns[own, :width],
                mask,
                clip_range=settings.value_clip_range,
                token_count=tokens,
            )
        entropy = torch.zeros((), device=mask.device)
        if output.entropy is not None:
            entropy = entropy_bonus(output.entropy, mask, token_count=tokens)
        objective = composite_objective(
            policy_loss,
            value_loss,
            entropy,
            value_coefficient=settings.value_coefficient,
            entropy_coefficient=settings.entropy_coefficient,
        )
        objective.backward()  # type: ignore[no-untyped-call]
        shares.append(float(moved.token_count) / tokens)
        means = (moved.clip_fraction, moved.approximate_kl, moved.ratio_mean)
        figures.append(torch.stack([*means, policy_loss.detach(), value_loss.detach(), moved.ratio_max]).double())
    for share, values in zip(shares, torch.stack(figures).tolist() if figures else (), strict=True):
        clip_fraction, approximate_kl, ratio_mean, policy_part, value_part, ratio_max = values
        totals["ppo/clip_fraction"] += clip_fraction * share
        totals["ppo/approximate_kl"] += approximate_kl * share
        totals["ppo/ratio_mean"] += ratio_mean * share
        totals["ppo/policy_loss"] += policy_part
        if experience.values is not None:
            totals["ppo/value_loss"] += value_part
        totals["ppo/ratio_max"] = max(totals["ppo/ratio_max"], ratio_max)
    return strategy.total(totals)
