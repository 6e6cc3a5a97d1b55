"""Cost and benefit of more labelers per prompt, from their agreement and the time of an answer.

Two labelers who are independently right about an ordered pair with probability q agree with probability a = q² + (1 −
q)². So a measured agreement a gives q = (1 + √(2a − 1)) / 2, and n labelers together, by majority with ties ½, are
right with probability Σ C(n, k)·qᵏ·(1 − q)ⁿ⁻ᵏ over k > n/2. If some pairs are hard for everybody, labelers are not
independent, and the benefit of more of them is smaller.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt

from triphase.labeling.quality.agreement import Estimate

OVERLAPS = (1, 2, 3, 5, 7)


@dataclass(frozen=True, slots=True)
class OverlapCost:
    """``overlap`` labelers per prompt: total hours of work, and the share of ordered pairs that come out right."""

    overlap: int
    hours: float
    right: float
    low: float
    high: float


def choices(agreement: Estimate | None, seconds: float | None, prompts: int) -> Sequence[OverlapCost]:
    """Cost and benefit of each overlap; empty if agreement or time is unknown, or agreement is by chance.

    Args:
        agreement: of two labelers, over ordered pairs.
        seconds: time of an answer.
        prompts: number to be ranked.
    """
    if agreement is None or seconds is None or agreement.value <= 0.5 or not prompts:
        return ()
    right = [accuracy(share) for share in (agreement.value, agreement.low, agreement.high)]
    return [OverlapCost(n, n * prompts * seconds / 3600, *(majority(q, n) for q in right)) for n in OVERLAPS]


def accuracy(agreement: float) -> float:
    """q of labelers who agree with probability ``agreement``; ½ if that is no more than chance."""
    return (1 + sqrt(max(0.0, 2 * agreement - 1))) / 2


def majority(q: float, count: int) -> float:
    """How often the majority of ``count`` labelers is right, ties ½."""
    of = [comb(count, k) * q**k * (1 - q) ** (count - k) for k in range(count + 1)]
    tied = of[count // 2] if count % 2 == 0 else 0.0
    return sum(of[count // 2 + 1 :]) + tied / 2
