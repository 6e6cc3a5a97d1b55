"""From scores to advantages: shaping of scores, token rewards, generalized advantage estimation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from triphase.objectives.divergence import kl_k1
from triphase.objectives.masking import at_least_float32, last_true_index, rescale_keep_mean
from triphase.objectives.shapes import (
    require_constant,
    require_positive,
    require_response_prefix,
    require_shapes,
    require_share,
)


def replace_unfinished(scores: Tensor, finished: Tensor, value: float) -> Tensor:
    """Give every response without an end token one fixed score, regardless of what the scorer gave it.

        r'_b = r_b if finished_b else value

    The score must be centered, else a fixed value such as -1 is not low.

    Args:
        scores: (B,).
        finished: (B,) bool, True where the response ends with the end token.
        value: the score of the responses that are not finished.

    Raises:
        ValueError: shapes do not fit, or finished is not bool.

    Source: Huang et al. (arXiv 2403.17031), "EOS trick", with value -1.
    """
    _require_finished(scores, finished)
    return torch.where(finished, scores, value)


def penalize_unfinished(scores: Tensor, finished: Tensor, penalty: float) -> Tensor:
    """Subtract a penalty from the score of every response without an end token; their order stays.

        r'_b = r_b if finished_b else r_b - penalty

    Args:
        scores: (B,).
        finished: (B,) bool, True where the response ends with the end token.
        penalty: what is subtracted, not negative.

    Raises:
        ValueError: shapes do not fit, finished is not bool, or the penalty is negative.

    Source: TRL's ``missing_eos_penalty``.
    """
    _require_finished(scores, finished)
    if not penalty >= 0:
        raise ValueError(f"penalty must not be negative: it is subtracted from the score; it is {penalty}")
    return torch.where(finished, scores, scores - penalty)


def clip_scores(scores: Tensor, limit: float) -> tuple[Tensor, int]:
    """Clip scores to [-limit, limit], and count how many were outside.

        r'_b = min(max(r_b, -limit), limit)

    Args:
        scores: (B,).
        limit: above 0.

    Returns:
        The clipped scores (B,) and the number of scores that were changed.

    Raises:
        ValueError: scores are not (B,), or the limit is not above 0.
    """
    require_shapes(scores=(scores, "B"))
    require_positive(limit=limit)
    return scores.clamp(-limit, limit), int((scores.abs() > limit).sum())


def center_scores(scores: Tensor) -> Tensor:
    """Subtract from each score the mean of the others in its rollout; a single score is unchanged.

        r'_b = r_b - (1/(B-1)) · Σ_{j≠b} r_j = (r_b - mean(r)) · B/(B-1)

    What is subtracted does not depend on response b, so it is a baseline: the policy gradient keeps its expectation,
    where subtracting the mean of all would weaken the score by (B-1)/B against the KL penalty. Equal scores become
    exactly 0, and a constant added to all of them changes nothing.

    Args:
        scores: (B,).

    Raises:
        ValueError: scores are not (B,).

    Source: the leave-one-out baseline of Ahmadian et al. (arXiv 2402.14740), over the rollout instead of one prompt.
    """
    require_shapes(scores=(scores, "B"))
    count = len(scores)
    if count == 1:
        return scores
    wide = scores.double() - scores.double()[0]  # so that equal scores are 0 without rounding
    return ((wide - wide.mean()) * (count / (count - 1))).to(scores.dtype)


def kl_penalty(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, *, kl_coefficient: float) -> Tensor:
    """The KL penalty of each token.

        β · (log π(y_t) - log π_ref(y_t)),   0 at padding

    Args, errors and source as in :func:`token_rewards`.
    """
    require_shapes(logprobs=(logprobs, "B R"), reference_logprobs=(reference_logprobs, "B R"), mask=(mask, "B R"))
    require_response_prefix(mask)
    require_constant(logprobs=logprobs, reference_logprobs=reference_logprobs)
    if not kl_coefficient >= 0:
        raise ValueError(f"kl_coefficient must not be negative; it is {kl_coefficient}")
    return torch.where(mask, kl_coefficient * kl_k1(logprobs, reference_logprobs), 0)


def token_rewards(
    scores: Tensor, logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, *, kl_coefficient: float
) -> Tensor:
    """The reward of each response token: minus the KL penalty everywhere, plus the score at the last real token.

        R_t = -β · (log π(y_t) - log π_ref(y_t)) + r · [t is the last token],   0 at padding

    The end token is treated like any other: it pays the KL penalty and carries the score.

    The penalty is k1, and no other estimator is offered. Its sum over tokens is an unbiased estimate of the sequence
    KL, and PPO on this reward ends at the optimum of E[r] - β·KL(π‖π_ref). k3 has the same mean and less noise, but a
    policy gradient weights the reward of each token by ∇log π, and for k3 that product vanishes to first order near
    π_ref: the policy is hardly constrained (on the test's toy problem it ends 0.5 to 0.8 of total variation away from
    the optimum).

    Args:
        scores: (B,) r, one for each response.
        logprobs: (B, R) of the rollout policy, at the sampling temperature.
        reference_logprobs: (B, R), at the same temperature.
        mask: (B, R) bool, True on the response tokens, right-padded.
        kl_coefficient: β, not negative.

    Returns:
        (B, R) float32 or float64.

    Raises:
        ValueError: shapes do not fit, the mask is no right-padded response mask, an input requires a gradient, or
            kl_coefficient is negative.

    Source: Ziegler et al. (arXiv 1909.08593), Eq. 2; Stiennon et al. (arXiv 2009.01325), §3.4. Departure: the score is
    on the last real token, where several libraries put it on the padding after it.
    """
    require_shapes(scores=(scores, "B"), mask=(mask, "B R"))
    require_constant(scores=scores)
    penalty = kl_penalty(logprobs, reference_logprobs, mask, kl_coefficient=kl_coefficient)
    last = last_true_index(mask)[:, None]
    return (-penalty).scatter_add(1, last, scores.to(penalty.dtype)[:, None])


def rescale_token_rewards(token_rewards: Tensor, mask: Tensor) -> Tensor:
    """Scale the token rewards of a batch to variance 1 about their mean. Off by default, for a reason.

        R'_t = (R_t - mean)/std + mean,   0 at padding

    This is not a pure scaling: it adds mean·(1 - 1/std) to every token, so longer or shorter responses are rewarded for
    their length, and the optimum moves (by 0.009 of total variation on the test's toy problem, 0.019 if the mean is
    subtracted). To bring rewards to one scale, standardize the scores.

    Args:
        token_rewards: (B, R).
        mask: (B, R) bool.

    Raises:
        ValueError: shapes differ, the mask is not bool, or counts nothing.

    Source: Ziegler et al. (arXiv 1909.08593), code; measured as harmful by Huang et al. (arXiv 2403.17031), §7.1.
    """
    require_shapes(token_rewards=(token_rewards, "B R"), mask=(mask, "B R"))
    return rescale_keep_mean(token_rewards, mask)


@dataclass(frozen=True, slots=True)
class Advantages:
    """What the policy and the value head learn from.

    Attributes:
        advantages: (B, R) Â_t, not whitened; 0 at padding.
        returns: (B, R) Â_t + V(s_t), the target of the values; without a critic, the return of the whole response; 0 at
            padding.
    """

    advantages: Tensor
    returns: Tensor


def generalized_advantages(
    token_rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float
) -> Advantages:
    """Generalized advantage estimation over response tokens.

        δ_t = R_t + γ·V(s_{t+1}) - V(s_t),   Â_t = Σ_{l ≥ 0} (γλ)^l · δ_{t+l},   return_t = Â_t + V(s_t)

    V after the last real token is 0, whether the response ended or was cut at the length limit: a cut response is
    terminal, and its score is all the reward it gets. (Bootstrapping at the cut would reward tokens that are never
    generated.) λ = 0 is the temporal difference alone, λ = 1 the discounted return minus the value.

    Args:
        token_rewards: (B, R).
        values: (B, R), V(s_t) before token t is generated; values at padding are ignored.
        mask: (B, R) bool, True on the response tokens, right-padded.
        discount: γ in [0, 1].
        gae_lambda: λ in [0, 1].

    Returns:
        Advantages, each (B, R) float32 or float64.

    Raises:
        ValueError: shapes do not fit, the mask is no right-padded response mask, an input requires a gradient, or
            discount or gae_lambda is outside [0, 1].

    Source: Schulman et al. (arXiv 1506.02438), Eq. 16.
    """
    require_shapes(token_rewards=(token_rewards, "B R"), values=(values, "B R"), mask=(mask, "B R"))
    require_response_prefix(mask)
    require_constant(token_rewards=token_rewards, values=values)
    require_share(discount=discount, gae_lambda=gae_lambda)
    rewards = torch.where(mask, at_least_float32(token_rewards), 0)
    values = torch.where(mask, at_least_float32(values), 0)
    next_values = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    differences = rewards + discount * next_values - values

    running = torch.zeros_like(differences[:, 0])
    columns = []
    for difference in reversed(differences.unbind(1)):
        running = torch.add(difference, running, alpha=discount * gae_lambda)
        columns.append(running)
    advantages = torch.stack(columns[::-1], dim=1)
    return Advantages(advantages, advantages + values)


def _require_finished(scores: Tensor, finished: Tensor) -> None:
    require_shapes(scores=(scores, "B"), finished=(finished, "B"))
    if finished.dtype != torch.bool:
        raise ValueError(f"finished must be bool, True where the response has its end token; it is {finished.dtype}")
