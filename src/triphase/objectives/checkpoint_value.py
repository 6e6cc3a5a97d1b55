"""What a checkpoint of PPO is worth on held-out prompts, as far as is known without gold."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, isfinite
from statistics import fmean, pstdev

LEAST_KL_PRICE = 0.1
"""Minimum price of a nat of reference KL, in standard deviations of the scores, where every score counts as it is."""
_KL_PRICE = 0.05
_COUNTED = 0.95


@dataclass(frozen=True, slots=True)
class Measure:
    """How the scores of one scorer are counted.

    Attributes:
        deviation: σ of the SFT policy's scores.
        price: of a nat, in σ.
        highest: the score above which a score counts no more than this.
    """

    deviation: float
    price: float
    highest: float = inf

    @classmethod
    def of_reward_model(cls, scores: Sequence[float]) -> "Measure":
        """That of a model which has learned from comparisons of the SFT policy's responses, from ``scores`` of such.

        A score higher than 95 % of them extrapolates, and counts as that quantile; the price is 0.05. Scores without
        spread have a deviation of 1.

        Raises:
            ValueError: none of them is finite.
        """
        whole = sorted(score for score in scores if isfinite(score))
        if not whole:
            raise ValueError("no score is finite: they have no range")
        return cls(pstdev(whole) or 1.0, _KL_PRICE, whole[ceil(_COUNTED * len(whole)) - 1])

    def value(self, scores: Sequence[float], reference_kl: float) -> float:
        """mean_i min(r_i, c)/σ − p·KL over the finite scores r of a checkpoint's responses, at least one."""
        counted = fmean(min(score, self.highest) for score in scores if isfinite(score))
        return counted / self.deviation - self.price * reference_kl


def checkpoint_value(scorers: Sequence[tuple[Measure, Sequence[float]]], reference_kl: float) -> float:
    """The mean over all scorers of the mean score, as far as it is believed, less a price for KL.

        V = 1/M · Σ_m [mean_i min(r_mi, c_m)/σ_m − p_m·KL]

    The scorers are the one that PPO maximizes and the witness, if there is one. PPO raises its score without end, and
    neither shows an error that both have learned. What is known of both is where they extrapolate: beyond the scores of
    the responses that labelers compared, and far from the policy that wrote those.

    Args:
        scorers: for each of them its measure and the scores of the checkpoint's responses.
        reference_kl: mean KL to the reference, in nats per response.

    Returns:
        V, in standard deviations of the SFT policy's scores.
    """
    return fmean(measure.value(scores, reference_kl) for measure, scores in scorers)
