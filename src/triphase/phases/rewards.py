"""From the scores of a rollout to rewards at every token, and to advantages."""

from collections.abc import Sequence

import torch
from torch import Tensor

from triphase.objectives.advantages import (
    Advantages,
    clip_scores,
    generalised_advantages,
    kl_penalty,
    penalise_unfinished,
    rescale_token_rewards,
    token_rewards,
)
from triphase.objectives.invariants import require_scores_on_last_token
from triphase.objectives.masking import standardise
from triphase.phases.experience import Experience
from triphase.rollouts.types import Generated
from triphase.settings.schema import PPOSettings


def shape_rewards(
    experience: Experience, generated: Sequence[Generated], settings: PPOSettings, *, kl_coefficient: float
) -> tuple[Tensor, dict[str, float]]:
    """Rewards at every token from the scores of a rollout, and figures of what was done to them.

    Scores are clipped, pay for a missing end, and are standardised over the rollout; then comes the KL penalty.
    """
    mask = experience.batch.response_mask
    finished = torch.tensor([answer.finished for answer in generated], device=mask.device)
    scores = experience.scores
    shaped: dict[str, float] = {}
    if settings.score_limit is not None:
        scores, clipped = clip_scores(scores, settings.score_limit)
        shaped["ppo/clipped_scores"] = float(clipped)
    scores = penalise_unfinished(scores, finished, settings.missing_eos_penalty)
    if settings.standardise_scores and float(scores.std(unbiased=False)) > 0:
        scores = standardise(scores, torch.ones_like(scores, dtype=torch.bool))
    shaped["ppo/kl_coefficient"] = kl_coefficient
    divergence = experience.logprobs, experience.reference_logprobs, mask
    rewards = token_rewards(scores, *divergence, kl_coefficient=kl_coefficient)
    require_scores_on_last_token(rewards, scores, kl_penalty(*divergence, kl_coefficient=kl_coefficient), mask)
    if settings.rescale_token_rewards:
        rewards = rescale_token_rewards(rewards, mask)
    return rewards, shaped


def advantages_of(rewards: Tensor, experience: Experience, settings: PPOSettings) -> Advantages:
    """Advantages and returns of a rollout; the advantages standardised over its real tokens, by default."""
    mask = experience.batch.response_mask
    found = generalised_advantages(
        rewards, experience.values, mask, discount=settings.discount, gae_lambda=settings.gae_lambda
    )
    if not settings.standardise_advantages:
        return found
    return Advantages(standardise(found.advantages, mask), found.returns)
