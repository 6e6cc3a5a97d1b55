"""A rollout that an engine sampled with its own arithmetic: how far its log-probabilities are from the trainer's."""

import math
from collections.abc import Sequence

import torch

from triphase.batches.transfers import to_device
from triphase.errors import TrainingError
from triphase.objectives.advantages import Advantages
from triphase.objectives.importance import truncated_importance_weights
from triphase.objectives.masking import masked_mean
from triphase.phases.experience import Experience
from triphase.rollouts.types import Generated
from triphase.settings.ppo import PPOSettings

_NOT_ROUNDING = 0.5
"""Mean difference, in nats per token, above which the two are different policies, not different arithmetics."""


def against_sampler(
    advantages: Advantages,
    experience: Experience,
    generated: Sequence[Generated],
    settings: PPOSettings,
    *,
    staleness: int = 0,
) -> tuple[Advantages, dict[str, float]]:
    """The advantages, weighted if ``importance_limit`` is set, and metrics of the difference; empty in process.

    ``staleness`` is the number of iterations by which the policy that sampled is older than the trainer's.

    Raises:
        TrainingError: weights are requested, and the difference of one policy is larger than rounding, or is unknown.
    """
    limit = settings.importance_limit
    if any(each.logprobs is None for each in generated):
        if limit is not None:
            raise TrainingError(
                f"ppo.importance_limit: {limit:g} weights samples by the servers' "
                f"log-probabilities, but a response has none; sample with rollout servers, or leave the setting out"
            )
        return advantages, {}
    mask = experience.batch.response_mask
    rows = torch.zeros(mask.shape)
    for row, each in enumerate(generated):
        given = each.logprobs or ()
        rows[row, : len(given)] = torch.tensor(given)
    sampled = to_device(rows, mask.device)
    difference = torch.where(mask, experience.logprobs - sampled, 0).abs()
    mean = float(masked_mean(difference, mask))
    figures = {"ppo/sampler_difference": mean, "ppo/sampler_difference_max": float(difference.max())}
    figures["ppo/staleness"] = float(staleness)
    if limit is None:
        return advantages, figures
    if mean > _NOT_ROUNDING and not staleness:
        raise TrainingError(
            f"ppo.importance_limit: the servers' log-probabilities are {mean:.3g} nats per token "
            f"from the trainer's, which is more than rounding: start them with --logprobs-mode "
            f"processed_logprobs (`triphase rollouts serve` does)"
        )
    weights = truncated_importance_weights(experience.logprobs, sampled, mask, limit=limit)
    figures["ppo/importance_weight"] = float(masked_mean(weights, mask))
    figures["ppo/importance_cut"] = float(masked_mean((experience.logprobs - sampled > math.log(limit)).float(), mask))
    return Advantages(advantages.advantages * weights, advantages.returns), figures
