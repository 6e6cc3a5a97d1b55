"""Calibration of the reward model's probabilities, and the ceiling of its accuracy."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from triphase.objectives.shapes import require_shapes


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One bar of a reliability diagram.

    Attributes:
        low: lower edge of the predicted probability.
        high: upper edge; part of the next bin, except in the last bin.
        count: pairs in the bin.
        mean_probability: their mean predicted probability; None in an empty bin.
        observed_frequency: the share of them that came true; None in an empty bin.
    """

    low: float
    high: float
    count: int
    mean_probability: float | None
    observed_frequency: float | None


def reliability(probabilities: Tensor, outcomes: Tensor, bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """Predicted against observed frequency in bins of equal width.

    The order within a pair must not depend on the outcome (use the order shown to the labeler): with the preferred
    response always first every outcome is 1, and nothing is measured.

    Args:
        probabilities: (P,) predicted probability that the first is preferred, in [0, 1].
        outcomes: (P,) 1 where it was, 0 where not, 0.5 for a tie.
        bins: number of bins, at least 1.

    Raises:
        ValueError: shapes differ, no pair, a number outside [0, 1], or no bin.
    """
    require_shapes(probabilities=(probabilities, "P"), outcomes=(outcomes, "P"))
    if bins < 1:
        raise ValueError(f"bins must be at least 1; it is {bins}")
    if len(probabilities) == 0:
        raise ValueError("there is no pair: calibration over no pairs is undefined")
    for name, numbers in (("probabilities", probabilities), ("outcomes", outcomes)):
        if not bool(((numbers >= 0) & (numbers <= 1)).all()):
            raise ValueError(f"{name} must lie between 0 and 1")
    probabilities, outcomes = probabilities.double(), outcomes.double()
    place = (probabilities * bins).floor().clamp(max=bins - 1).long()
    counts = torch.bincount(place, minlength=bins).tolist()
    predicted = torch.bincount(place, probabilities, minlength=bins).tolist()
    observed = torch.bincount(place, outcomes, minlength=bins).tolist()
    return tuple(
        ReliabilityBin(
            low=index / bins,
            high=(index + 1) / bins,
            count=int(count),
            mean_probability=predicted[index] / count if count else None,
            observed_frequency=observed[index] / count if count else None,
        )
        for index, count in enumerate(counts)
    )


def expected_calibration_error(probabilities: Tensor, outcomes: Tensor, bins: int = 10) -> float:
    """Mean distance of observed frequency and predicted probability over bins, weighted by their pairs.

        ECE = Σ_b (n_b/P) · | mean outcome of b - mean probability of b |

    Args and errors as in :func:`reliability`.

    Source: Guo et al. (arXiv 1706.04599), Eq. 3, for the probability of one side instead of the top class.
    """
    total = 0.0
    for one in reliability(probabilities, outcomes, bins):
        if one.mean_probability is not None and one.observed_frequency is not None:
            total += one.count * abs(one.observed_frequency - one.mean_probability)
    return total / len(probabilities)


def noise_ceiling_from_agreement(agreement: float, labelers: int = 1) -> float:
    """The accuracy that a perfect reward model reaches against labels of labelers who agree this often.

        q = (1 + √(2a - 1))/2              of one labeler: two who are right with probability q agree with
                                           probability a = q² + (1 - q)²
        Σ_{k > n/2} C(n,k) q^k (1 - q)^(n-k)     of the majority of n labelers

    Args:
        agreement: a in [0.5, 1], share of pairs on which two labelers agree.
        labelers: n, odd: the labels are the majority of n labelers; 1 for the labels of a single one.

    Raises:
        ValueError: agreement outside [0.5, 1] (below chance no q exists), or labelers not odd.

    The pairs are assumed to be equally hard. If some are much harder than others, the majority's true ceiling is lower.
    """
    if not 0.5 <= agreement <= 1:
        raise ValueError(f"agreement must lie between 0.5 (chance) and 1; it is {agreement}")
    if labelers < 1 or labelers % 2 == 0:
        raise ValueError(f"labelers must be odd, so that there is a majority; it is {labelers}")
    right = (1 + math.sqrt(2 * agreement - 1)) / 2
    return math.fsum(
        math.comb(labelers, votes) * right**votes * (1 - right) ** (labelers - votes)
        for votes in range(labelers // 2 + 1, labelers + 1)
    )
