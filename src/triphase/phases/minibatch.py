"""The gradient of one minibatch: clipped surrogate, value loss and entropy bonus."""

import torch

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
    """Accumulate the gradient of this rank's part of a minibatch, and return the figures of the whole.

    Losses are normalized by the tokens of all ranks' parts, so that gradients need only be summed.

    Raises:
        InvariantError: this is the ``first`` minibatch of a rollout, and the policy is not the rollout policy.
    """
    rows_of_all = [row for rows in minibatch for row in rows]
    tokens = int(strategy.total({"tokens": int(experience.batch.response_lengths[rows_of_all].sum())})["tokens"])
    totals = dict.fromkeys(("ppo/clip_fraction", "ppo/approximate_kl", "ppo/ratio_mean", "ppo/policy_loss"), 0.0)
    if experience.values is not None:
        totals["ppo/value_loss"] = 0.0
    totals["ppo/ratio_max"] = 0.0
    for rows in minibatch:
        batch, states = rows_of(experience.batch, experience.boundary, rows)
        mask, width = batch.response_mask, int(batch.response_lengths.max())
        old = experience.logprobs[rows, :width]
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
            advantages.advantages[rows, :width],
            mask,
            clip_range=settings.clip_range,
            token_count=tokens,
        )
        value_loss = torch.zeros((), device=mask.device)
        if experience.values is not None and output.values is not None:
            value_loss, _ = clipped_value_loss(
                output.values,
                experience.values[rows, :width],
                advantages.returns[rows, :width],
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
        share = float(mask.sum()) / tokens
        part = {
            "ppo/clip_fraction": float(moved.clip_fraction) * share,
            "ppo/approximate_kl": float(moved.approximate_kl) * share,
            "ppo/ratio_mean": float(moved.ratio_mean) * share,
            "ppo/policy_loss": float(policy_loss.detach()),
        }
        if experience.values is not None:
            part["ppo/value_loss"] = float(value_loss.detach())
        for name, value in part.items():
            totals[name] += value
        totals["ppo/ratio_max"] = max(totals["ppo/ratio_max"], float(moved.ratio_max))
    return strategy.total(totals)
