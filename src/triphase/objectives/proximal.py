"""Proximal policy optimization: clipped policy loss, clipped value loss, entropy bonus and their sum."""

from dataclasses import dataclass

import torch
from torch import Tensor

from triphase.objectives.divergence import kl_k3
from triphase.objectives.masking import at_least_float32, masked_mean, masked_sum, moments, token_divisor
from triphase.objectives.shapes import require_constant, require_mask, require_positive, require_same_shape

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped to ± this, so that one token cannot overflow float32; such a token gives no gradient."""


@dataclass(frozen=True, slots=True)
class PolicyMetrics:
    """Metrics over the tokens counted here; means of microbatches combine with token_count as weight.

    Attributes:
        ratio_mean: () mean of π/π_rollout; 1 in expectation.
        ratio_max: () its largest value.
        clip_fraction: () share of tokens where the clipped branch was chosen and the ratio is out of range: those
            that give no gradient.
        approximate_kl: () mean k3 of the rollout policy to the policy, nats per token.
        token_count: tokens counted.
    """

    ratio_mean: Tensor
    ratio_max: Tensor
    clip_fraction: Tensor
    approximate_kl: Tensor
    token_count: int


def clipped_policy_loss(
    logprobs: Tensor,
    rollout_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_range: float,
    token_count: int | Tensor | None = None,
) -> tuple[Tensor, PolicyMetrics]:
    """The clipped surrogate of PPO, negated to be minimized.

        r_t = exp(log π(y_t) - log π_rollout(y_t))
        L = -(1/n) · Σ_{mask} min( r_t·Â_t , clip(r_t, 1 - ε, 1 + ε)·Â_t )

    With r = 1 everywhere it is minus the mean advantage, and its gradient is that of the policy gradient.

    Args:
        logprobs: (B, R) or (N,), of the policy; the gradient flows here.
        rollout_logprobs: the same shape, of the policy that sampled; constant.
        advantages: the same shape; constant.
        mask: the same shape, bool.
        clip_range: ε in (0, 1).
        token_count: n, the tokens of the whole optimizer step; None when they are all here.

    Raises:
        ValueError: shapes differ, the mask is not bool or counts nothing, a constant requires a gradient, clip_range
            is outside (0, 1), or token_count is below the tokens here.

    Source: Schulman et al. (arXiv 1707.06347), Eq. 7. Departure: the log-ratio is clamped to ±20.
    """
    require_same_shape(logprobs=logprobs, rollout_logprobs=rollout_logprobs, advantages=advantages, mask=mask)
    require_constant(rollout_logprobs=rollout_logprobs, advantages=advantages)
    if not 0 < clip_range < 1:
        raise ValueError(f"clip_range must lie between 0 and 1; it is {clip_range}")
    divisor = token_divisor(mask, token_count)
    log_ratio = torch.where(mask, at_least_float32(logprobs) - at_least_float32(rollout_logprobs), 0)
    log_ratio = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = log_ratio.exp()
    advantages = torch.where(mask, at_least_float32(advantages), 0)
    unclipped = ratio * advantages
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range) * advantages
    loss = -masked_sum(torch.minimum(unclipped, clipped), mask) / divisor

    with torch.no_grad():
        metrics = PolicyMetrics(
            ratio_mean=masked_mean(ratio, mask),
            ratio_max=torch.where(mask, ratio, 0).max(),
            clip_fraction=masked_mean((clipped < unclipped).float(), mask),
            approximate_kl=masked_mean(kl_k3(torch.zeros_like(log_ratio), log_ratio), mask),
            token_count=require_mask(mask),
        )
    return loss, metrics


@dataclass(frozen=True, slots=True)
class ValueMetrics:
    """Metrics over the tokens counted here; means of microbatches combine with token_count as weight.

    Attributes:
        squared_error: () mean (V - return)², unclipped.
        clip_fraction: () share of tokens whose loss is that of the clipped value; 0 without clipping.
        token_count: tokens counted.
    """

    squared_error: Tensor
    clip_fraction: Tensor
    token_count: int


def clipped_value_loss(
    values: Tensor,
    rollout_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    clip_range: float | None,
    token_count: int | Tensor | None = None,
) -> tuple[Tensor, ValueMetrics]:
    """Squared error of the values against the returns, with the step of each value limited.

        V_clip = clip(V, V_rollout - ε, V_rollout + ε)
        L = (1/n) · Σ_{mask} ½ · max( (V - return)² , (V_clip - return)² )

    Args:
        values: (B, R) or (N,), current ones of the value head; the gradient flows here.
        rollout_values: the same shape, as they were at the rollout; constant.
        returns: the same shape; constant.
        mask: the same shape, bool.
        clip_range: ε above 0, in units of the value; None does not clip.
        token_count: n, the tokens of the whole optimizer step; None when they are all here.

    Raises:
        ValueError: shapes differ, the mask is not bool or counts nothing, a constant requires a gradient, clip_range
            is not above 0, or token_count is below the tokens here.

    Source: OpenAI baselines, ``ppo2``, as used by Ziegler et al. (arXiv 1909.08593).
    """
    require_same_shape(values=values, rollout_values=rollout_values, returns=returns, mask=mask)
    require_constant(rollout_values=rollout_values, returns=returns)
    divisor = token_divisor(mask, token_count)
    values, returns = (torch.where(mask, at_least_float32(x), 0) for x in (values, returns))
    error = (values - returns).square()
    worse = error
    if clip_range is not None:
        require_positive(clip_range=clip_range)
        center = torch.where(mask, at_least_float32(rollout_values), 0)
        limited = torch.clamp(values, center - clip_range, center + clip_range)
        worse = torch.maximum(error, (limited - returns).square())
    loss = 0.5 * masked_sum(worse, mask) / divisor
    metrics = ValueMetrics(
        squared_error=masked_mean(error.detach(), mask),
        clip_fraction=masked_mean((worse > error).float(), mask),
        token_count=require_mask(mask),
    )
    return loss, metrics


def entropy_bonus(entropy: Tensor, mask: Tensor, *, token_count: int | Tensor | None = None) -> Tensor:
    """Entropy per response token, to be multiplied by its coefficient and maximized.

        S = (1/n) · Σ_{mask} H_t

    Args:
        entropy: (B, R) or (N,), over the full vocabulary at each position.
        mask: the same shape, bool.
        token_count: n, the tokens of the whole optimizer step; None when they are all here.

    Raises:
        ValueError: shapes differ, the mask is not bool or counts nothing, or token_count is below the tokens here.

    Source: Schulman et al. (arXiv 1707.06347), Eq. 9.
    """
    require_same_shape(entropy=entropy, mask=mask)
    return masked_sum(entropy, mask) / token_divisor(mask, token_count)


def composite_objective(
    policy_loss: Tensor, value_loss: Tensor, entropy: Tensor, *, value_coefficient: float, entropy_coefficient: float
) -> Tensor:
    """The objective of PPO, negated to be minimized.

        L = L_policy + c1·L_value - c2·S

    Args:
        policy_loss: () from :func:`clipped_policy_loss`.
        value_loss: () from :func:`clipped_value_loss`.
        entropy: () from :func:`entropy_bonus`.
        value_coefficient: c1, not negative.
        entropy_coefficient: c2, not negative.

    Raises:
        ValueError: an input is not a scalar, or a coefficient is negative.

    Source: Schulman et al. (arXiv 1707.06347), Eq. 9, with the sign of minimization.
    """
    for name, part in (("policy_loss", policy_loss), ("value_loss", value_loss), ("entropy", entropy)):
        if part.dim() != 0:
            raise ValueError(f"{name} must be a scalar; it has the shape {tuple(part.shape)}")
    for name, number in (("value_coefficient", value_coefficient), ("entropy_coefficient", entropy_coefficient)):
        if not number >= 0:
            raise ValueError(f"{name} must not be negative; it is {number}")
    return policy_loss + value_coefficient * value_loss - entropy_coefficient * entropy


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor | None:
    """The share of the variance of the returns that the values explain.

        1 - Var(return - V) / Var(return)

    1 is a perfect critic, 0 one that knows only the mean, below 0 one that is worse than its own mean.

    Args:
        values: (B, R) or (N,), those of the rollout.
        returns: the same shape.
        mask: the same shape, bool.

    Returns:
        () float64; None where all returns are equal and there is nothing to explain.

    Raises:
        ValueError: shapes differ, the mask is not bool, or counts nothing.
    """
    require_same_shape(values=values, returns=returns, mask=mask)
    values, returns = values.detach(), returns.detach()
    total = moments(returns, mask)
    if not total.has_spread(returns.dtype):
        return None
    return 1 - moments(returns.double() - values.double(), mask).variance / total.variance
