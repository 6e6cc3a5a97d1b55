"""From the scores of a rollout to rewards at every token, and to advantages."""

import torch
from torch import Tensor

from triphase.errors import TrainingError
from triphase.objectives.advantages import (
    Advantages,
    center_scores,
    clip_scores,
    kl_penalty,
    penalize_unfinished,
    rescale_token_rewards,
    token_rewards,
)
from triphase.objectives.invariants import require_scores_on_last_token
from triphase.objectives.masking import moments, standardize
from triphase.phases.estimators import estimator_of
from triphase.phases.experience import Experience
from triphase.phases.score_scale import ScoreScale, has_spread
from triphase.settings.ppo import PPOSettings


def shape_rewards(
    experience: Experience,
    finished: Tensor,
    settings: PPOSettings,
    *,
    kl_coefficient: float,
    scale: ScoreScale,
) -> tuple[Tensor, dict[str, float]]:
    """Rewards at every token from the scores of a rollout, and metrics of the transformation.

    Scores are brought to the run's scale, clipped, penalized if the end is missing, and centered; then the KL penalty
    is subtracted. ``finished`` (B,) is True if the response has its end token.

    Raises:
        TrainingError: the KL penalty overflows float32.
    """
    mask = experience.batch.response_mask
    scores, divisor, figures = shape_scores(experience.scores, finished, settings, scale)
    figures["ppo/kl_coefficient"] = kl_coefficient
    if divisor is not None:
        figures["ppo/effective_kl_coefficient"] = kl_coefficient * divisor
    divergence = experience.logprobs, experience.counted_from, mask
    penalty = kl_penalty(*divergence, kl_coefficient=kl_coefficient)
    if not bool(torch.isfinite(penalty).all()):
        raise TrainingError(f"ppo.kl_coefficient: {kl_coefficient:g} times a log-ratio is beyond float32; lower it")
    rewards = token_rewards(scores, *divergence, kl_coefficient=kl_coefficient)
    require_scores_on_last_token(rewards, scores, penalty, mask)
    if settings.rescale_token_rewards:
        rewards = rescale_token_rewards(rewards, mask)
    return rewards, figures


def shape_scores(
    scores: Tensor, finished: Tensor, settings: PPOSettings, scale: ScoreScale
) -> tuple[Tensor, float | None, dict[str, float]]:
    """(B,) scores before the KL penalty, their divisor, and metrics of the transformation.

        calibrated, running:  center(clip((r - m)/s, ± limit) - penalty·[no end])      m, s of the run; with a critic
                              clip((r - m)/s, ± limit) - penalty·[no end]              without one
        batch:                standardize(clip(r, ± limit) - penalty·[no end])
        raw:                  clip(r, ± limit) - penalty·[no end]

    The divisor is None if nothing was divided because the scores do not differ.
    """
    figures: dict[str, float] = {}
    kind = settings.score_normalization
    keeps_scale = kind in ("calibrated", "running")
    if keeps_scale:
        scores = scale.normalized(scores)
    if settings.score_clip is not None:
        scores, clipped = clip_scores(scores, settings.score_clip)
        figures["ppo/clipped_scores"] = clipped / len(scores)
    scores = penalize_unfinished(scores, finished, settings.missing_eos_penalty)
    if keeps_scale:
        # A baseline of whole returns removes an offset by itself, and centering before it would count scores twice.
        return (center_scores(scores) if settings.has_critic else scores), scale.scale, figures
    if kind == "raw":
        return scores, 1.0, figures
    everything = torch.ones_like(scores, dtype=torch.bool)
    deviation = float(moments(scores, everything).variance.sqrt()) if has_spread(scores, 0.0) else None
    whitened = torch.zeros_like(scores) if deviation is None else standardize(scores, everything)
    return whitened, deviation, figures


def advantages_of(rewards: Tensor, experience: Experience, settings: PPOSettings, groups: Tensor) -> Advantages:
    """Advantages and returns of a rollout; with a critic they are standardized over real tokens, by default.

    ``groups`` (B,) is the number of each response's prompt. Without a critic nothing is standardized here: the
    advantages shrink to 0 as the policy nears the optimum, and dividing by their deviation would leave noise.
    """
    mask = experience.batch.response_mask
    found = estimator_of(settings)(rewards, experience.values, mask, groups)
    if not (settings.has_critic and settings.standardize_advantages):
        return found
    return Advantages(standardize(found.advantages, mask), found.returns)
