"""Several reward models of one kind: their combined score, and how much they disagree."""

import math

from torch import Tensor

from triphase.objectives.masking import at_least_float32
from triphase.objectives.shapes import require_shapes

COMBINATIONS = ("mean", "worst", "mean-minus-variance")


def combine_scores(scores: Tensor, combine: str, *, penalty: float = 0.0) -> Tensor:
    """The scores of M members as one score for each response.

        mean:                 (1/M) Σ_m r_m
        worst:                min_m r_m
        mean-minus-variance:  mean - λ · (1/M) Σ_m (r_m - mean)²

    The members must share scale and offset: an offset of one of them, which its training leaves free, would decide
    which is the worst. Their order changes no bit of the result.

    Args:
        scores: (M, N) of each member.
        combine: ``mean``, ``worst`` or ``mean-minus-variance``.
        penalty: λ, not negative; used by ``mean-minus-variance`` only.

    Returns:
        (N,) float32, or float64 for float64 scores.

    Raises:
        ValueError: another shape, no member, another rule, or a negative penalty.

    Source: Coste et al. (arXiv 2310.02743), Sec. 3: mean, worst-case (WCO) and uncertainty-weighted (UWO)
    optimization.
    """
    ordered = _ordered(scores)
    if not (math.isfinite(penalty) and penalty >= 0):
        raise ValueError(f"penalty must be a number and not negative; it is {penalty}")
    match combine:
        case "mean":
            return ordered.mean(0)
        case "worst":
            return ordered.amin(0)  # NaN if any member's score is
        case "mean-minus-variance":
            return ordered.mean(0) - penalty * ordered.var(0, correction=0)
    raise ValueError(f"combine must be one of {', '.join(COMBINATIONS)}; it is {combine!r}")


def member_deviation(scores: Tensor) -> Tensor:
    """How much M members disagree on each response: √( (1/M) Σ_m (r_m - mean)² ).

    Args:
        scores: (M, N) of each member.

    Returns:
        (N,) float32, or float64 for float64 scores; 0 for one member.

    Raises:
        ValueError: another shape, or no member.
    """
    return _ordered(scores).std(0, correction=0)


def _ordered(scores: Tensor) -> Tensor:
    """The scores of each response in ascending order, so that sums do not depend on the order of the members."""
    require_shapes(scores=(scores, "M N"))
    if len(scores) == 0:
        raise ValueError("there is no member to score")
    return at_least_float32(scores).sort(dim=0).values
