"""KL divergences: estimators from sampled tokens, the exact one, and the controllers of the KL coefficient."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from triphase.objectives.masking import at_least_float32
from triphase.objectives.shapes import require_positive, require_rows, require_same_shape, require_shapes


def kl_k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Schulman's first estimator of KL(π‖π_ref) from tokens of π: unbiased, noisy, of either sign.

        k1 = log π(y) - log π_ref(y)

    As a penalty inside the reward its policy gradient is that of the exact KL. As a loss its gradient is 0 in
    expectation.

    Args:
        logprobs: any shape, log-probabilities under the policy that sampled.
        reference_logprobs: the same shape.

    Raises:
        ValueError: shapes differ.

    Source: Schulman, "Approximating KL divergence" (2020), http://joschu.net/blog/kl-approx.html.
    """
    require_same_shape(logprobs=logprobs, reference_logprobs=reference_logprobs)
    return at_least_float32(logprobs) - at_least_float32(reference_logprobs)


def kl_k2(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Schulman's second estimator of KL(π‖π_ref): biased, of low variance, never negative.

        k2 = ½ · (log π(y) - log π_ref(y))²

    Args, errors and source as in :func:`kl_k1`.
    """
    return 0.5 * kl_k1(logprobs, reference_logprobs).square()


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Schulman's third estimator of KL(π‖π_ref): unbiased, of low variance, never negative. For metrics.

        k3 = r - 1 - log r,   r = π_ref(y)/π(y)

    Not for the reward: near π_ref it is of second order in log r, so the policy gradient of it as a penalty vanishes
    to first order and hardly restrains the policy (see :func:`triphase.objectives.advantages.token_rewards`).

    Args, errors and source as in :func:`kl_k1`.
    """
    log_ratio = -kl_k1(logprobs, reference_logprobs)
    return torch.expm1(log_ratio) - log_ratio


def full_kl(logits: Tensor, reference_logits: Tensor, temperature: float) -> Tensor:
    """Exact KL divergence at each position, over the full vocabulary, in nats.

        KL(π‖π_ref) = Σ_v p_v · (log p_v - log q_v),   p = softmax(z/T),  q = softmax(z_ref/T)

    Args:
        logits: (..., V).
        reference_logits: (..., V).
        temperature: T > 0, of both.

    Returns:
        (...) float32, or float64 for float64 logits.

    Raises:
        ValueError: shapes differ, or the temperature is not above 0.
    """
    require_same_shape(logits=logits, reference_logits=reference_logits)
    require_positive(temperature=temperature)
    logprobs = (at_least_float32(logits) / temperature).log_softmax(-1)
    reference_logprobs = (at_least_float32(reference_logits) / temperature).log_softmax(-1)
    return (logprobs.exp() * (logprobs - reference_logprobs)).sum(-1)


def reference_kl(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor) -> Tensor:
    """KL of the policy to the reference per response, estimated from the policy's own samples, in nats.

        (1/B) · Σ_b Σ_{t: mask} (log π(y_{b,t}) - log π_ref(y_{b,t}))

    A sum over tokens and a mean over responses: the unit of the KL coefficient and of published KL figures.

    Args:
        logprobs: (B, R) under the policy that sampled.
        reference_logprobs: (B, R).
        mask: (B, R) bool, at least one token in each row.

    Returns:
        () float32 or float64.

    Raises:
        ValueError: shapes differ, the mask is not bool, or a response has no token.

    Source: Ziegler et al. (arXiv 1909.08593), Eq. 2.
    """
    require_shapes(logprobs=(logprobs, "B R"), reference_logprobs=(reference_logprobs, "B R"), mask=(mask, "B R"))
    require_rows(mask)
    return torch.where(mask, kl_k1(logprobs, reference_logprobs), 0).sum(1).mean()


@dataclass(frozen=True, slots=True)
class FixedKL:
    """A constant KL coefficient."""

    def next_coefficient(self, current: float, observed_kl: float, episodes: int) -> float:
        """The coefficient of the next iteration: the current one."""
        return current


@dataclass(frozen=True, slots=True)
class AdaptiveKL:
    """A KL coefficient that is adapted to keep the KL per response near a target.

        e = clip(KL/target - 1, -0.2, 0.2),   β ← β · (1 + e · episodes/horizon)

    Attributes:
        target: desired KL per response, nats, above 0.
        horizon: episodes in which an error of 1 would double the coefficient, above 0.
        error_clip: bound of e, above 0.

    Raises:
        ValueError: a number is not above 0.

    Source: Ziegler et al. (arXiv 1909.08593), §2.2.
    """

    target: float
    horizon: float
    error_clip: float = 0.2

    def __post_init__(self) -> None:
        require_positive(target=self.target, horizon=self.horizon, error_clip=self.error_clip)

    def next_coefficient(self, current: float, observed_kl: float, episodes: int) -> float:
        """The coefficient of the next iteration.

        Args:
            current: β of this iteration, above 0.
            observed_kl: reference KL of this iteration, nats per response.
            episodes: responses of this iteration.

        Raises:
            ValueError: β or episodes is not above 0, the KL is not finite, or there are so many episodes relative to
                the horizon that β could fall to 0.
        """
        require_positive(current=current, episodes=episodes)
        if not math.isfinite(observed_kl):
            raise ValueError(f"observed_kl is {observed_kl}: the KL coefficient cannot follow it")
        if self.error_clip * episodes >= self.horizon:
            raise ValueError(
                f"{episodes} episodes per iteration with a horizon of {self.horizon} could take the KL coefficient to "
                f"0 in one step: the horizon must be above {self.error_clip * episodes:g}"
            )
        error = min(max(observed_kl / self.target - 1, -self.error_clip), self.error_clip)
        return current * (1 + error * episodes / self.horizon)


KLController = FixedKL | AdaptiveKL
