"""A metric of PPO over iterations with standard errors, which tell a change from noise.

The error of an iteration is the greater of two:

    within    deviation over the episodes / √episodes      (a share: binomial; a correlation: (1 − r²)/√(n − 1))
    between   median |x_t − 2·x_(t−1) + x_(t−2)| / (0.6745·√6)      over the iterations so far

Second differences are not affected by a steady trend, nor their median by a single jump. Nothing here uses later
iterations: the result for an iteration never changes when more are added.
"""

from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import median
from typing import Any

Rows = Sequence[Mapping[str, Any]]

WINDOW = 3
"""Iterations that a smoothed rule averages."""
_FEWEST_DIFFERENCES = 4
_FEWEST_BESIDE = 6
"""Used if the error within an iteration is known: with fewer differences one true jump distorts half of them."""
_NORMAL = 0.6745 * sqrt(6)
"""Median absolute second difference of independent normal values, in their standard deviations."""

_DEVIATIONS = {
    "ppo/proxy_score": "ppo/score_deviation",
    "ppo/gold_score": "ppo/gold_deviation",
    "ppo/reference_kl": "ppo/reference_kl_deviation",
    "ppo/entropy": "ppo/entropy_deviation",
    "ppo/mean_length": "ppo/length_deviation",
    "ppo/repeated_2": "ppo/repeated_2_deviation",
    "ppo/self_similarity": "ppo/self_similarity_deviation",
    "ppo/reward_disagreement": "ppo/reward_disagreement_deviation",
    "ppo/witness_score": "ppo/witness_score_deviation",
}
_SHARES = ("ppo/eos_rate", "ppo/common_opening")
_CORRELATIONS = (
    "ppo/length_score_correlation",
    "ppo/length_gold_correlation",
    "ppo/witness_score_correlation",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """A value and its standard error; None while it is unknown."""

    step: int
    value: float
    error: float | None

    def differs(self, other: "Measured", certainty: float) -> bool:
        """Whether the two are more than ``certainty`` standard errors of their difference apart.

        If the error of an early iteration is unknown, that of the other is used for it.
        """
        known = [error for error in (self.error, other.error) if error is not None]
        if not known:
            return False
        return abs(self.value - other.value) > certainty * sqrt(known[0] ** 2 + known[-1] ** 2)


@dataclass(frozen=True, slots=True)
class Drift:
    """What is known of a metric at one iteration: its start, and the mean of the last iterations."""

    start: Measured
    """The first iteration. Its rollout is written by the SFT policy itself, since PPO starts as its copy."""
    now: Measured


def moments(
    rows: Rows, metric: str, *, window: int = WINDOW, of: Callable[[float], float] | None = None
) -> list[Drift]:
    """The metric at each iteration that has it, from the ``window``-th on."""
    have = [row for row in rows if metric in row]
    plain = [float(row[metric]) if of is None else of(float(row[metric])) for row in have]
    within = [_within(row, metric) for row in have]
    between = _between(plain, _FEWEST_DIFFERENCES if None in within else _FEWEST_BESIDE)
    found = []
    for end in range(window, len(have) + 1):
        errors = [_greater(error, between[end - 1]) for error in within[:1] + within[end - window : end]]
        now = sum(plain[end - window : end]) / window
        found.append(
            Drift(
                Measured(int(have[0]["step"]), plain[0], errors[0]),
                Measured(int(have[end - 1]["step"]), now, _of_mean(errors[1:])),
            )
        )
    return found


def episodes_of(row: Mapping[str, Any]) -> float | None:
    """Episodes of one iteration: those so far over the iterations so far."""
    return row["ppo/episodes"] / row["step"] if row.get("ppo/episodes") else None


def _within(row: Mapping[str, Any], metric: str) -> float | None:
    count = episodes_of(row)
    if count is None or count < 2:
        return None
    value = float(row[metric])
    if metric in _SHARES:
        # With the rule of succession: a share of exactly 0 or 1 is not known exactly.
        share = (value * count + 1) / (count + 2)
        return sqrt(share * (1 - share) / (count + 2))
    if metric in _CORRELATIONS:
        return (1 - value**2) / sqrt(count - 1)
    deviation = row.get(_DEVIATIONS.get(metric, ""))
    return None if deviation is None else float(deviation) / sqrt(count - 1)


def _between(values: Sequence[float], fewest: int) -> list[float | None]:
    sizes: list[float] = []
    found: list[float | None] = []
    for at, value in enumerate(values):
        if at >= 2:
            insort(sizes, abs(value - 2 * values[at - 1] + values[at - 2]))
        found.append(median(sizes) / _NORMAL if len(sizes) >= fewest else None)
    return found


def _greater(first: float | None, second: float | None) -> float | None:
    known = [each for each in (first, second) if each is not None]
    return max(known) if known else None


def _of_mean(errors: Sequence[float | None]) -> float | None:
    known = [each for each in errors if each is not None]
    return sqrt(sum(each**2 for each in known)) / len(errors) if len(known) == len(errors) else None
