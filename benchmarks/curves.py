"""Gold over minutes: smoothing of a curve, the time at which it reaches a target, and the comparison of both sides."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

WINDOW = 3
SHARE = 0.9

Point = tuple[float, float]
"""(minutes, gold)."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times longer the peer takes: ``value``, or only a bound of it.

    Attributes:
        value: the ratio, or its bound.
        sign: "=" measured, ">" at least this much (the peer never arrived), "<" at most (we never did).
    """

    value: float
    sign: str = "="

    def __str__(self) -> str:
        return f"{'' if self.sign == '=' else self.sign + ' '}{self.value:.2f}"


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Each gold as the mean of the last `WINDOW` evaluations up to it, of fewer at the start."""
    return [
        (minutes, fmean(gold for _, gold in points[max(0, place + 1 - WINDOW) : place + 1]))
        for place, (minutes, _) in enumerate(points)
    ]


def target_of(start: float, *curves: Sequence[Point]) -> float | None:
    """`SHARE` of the way from ``start`` to the lowest of the curves' best smoothed gold; None where one gained nothing.

    start + 0.9 · (min over curves (max of the smoothed curve) − start)
    """
    lowest = min(max(gold for _, gold in smoothed(points)) for points in curves)
    return start + SHARE * (lowest - start) if lowest > start else None


def reached(points: Sequence[Point], target: float) -> float | None:
    """Minutes at which the smoothed curve first reaches ``target``, on a straight line between two evaluations."""
    curve = smoothed(points)
    if curve[0][1] >= target:
        return curve[0][0]
    for (before, low), (after, high) in pairwise(curve):
        if high >= target:
            return before + (after - before) * (target - low) / (high - low)
    return None


def ratio_of(ours: Sequence[Point], peer: Sequence[Point], target: float) -> Ratio | None:
    """The peer's minutes over ours; where one side never arrives, the bound that its whole time gives; else None."""
    mine, theirs = reached(ours, target), reached(peer, target)
    if not mine and mine is not None:
        return None  # the start is at the target already: nothing was timed
    if mine is not None and theirs is not None:
        return Ratio(theirs / mine)
    if mine is not None:
        return Ratio(peer[-1][0] / mine, ">")
    return None if theirs is None else Ratio(theirs / ours[-1][0], "<")


def middle(ratios: Sequence[Ratio]) -> Ratio | None:
    """The median; a bound where any of them is one, and None where there are bounds of both kinds, or no ratio."""
    signs = {ratio.sign for ratio in ratios} - {"="}
    if not ratios or len(signs) > 1:
        return None
    return Ratio(median(ratio.value for ratio in ratios), *signs)
