"""A value with its 95 % interval: the percentile bootstrap over prompts.

Prompts are resampled, not responses: responses to one prompt are correlated, and an interval that treated them as
independent would be too narrow. If every prompt has the same value, so has every resample, and the bootstrap would
claim certainty: a share then has the interval of `proportions.of_the_same`; an unbounded value has itself as bounds,
which are not shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from triphase.monitoring.proportions import of_the_same

RESAMPLES = 10_000
"""Bootstrap samples behind every interval."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its 95 % bounds; without an interval (one prompt, or see the module) they are None."""

    value: float
    low: float | None
    high: float | None
    prompts: int


SHARE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)
"""The range of a share, and of a difference of two shares."""
ALIKE = 1e-12
"""Bounds closer than this are equal."""


def mean_over_prompts(
    values: Sequence[float], *, seed: int = 0, within: tuple[float, float] | None = None
) -> Interval | None:
    """The mean of one value per prompt; None if there is none."""
    return ratio_over_prompts(values, [1.0] * len(values), seed=seed, within=within)


def ratio_over_prompts(
    sums: Sequence[float], counts: Sequence[float], *, seed: int = 0, within: tuple[float, float] | None = None
) -> Interval | None:
    """Σ sums / Σ counts, where each prompt contributes a sum and the number of its terms.

    None if nothing was counted. Prompts with a count of 0 are left out. ``within``: the range of the value, if it has
    one.
    """
    pairs = [(total, count) for total, count in zip(sums, counts, strict=True) if count > 0]
    if not pairs:
        return None
    numerators, denominators = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
    value = float(numerators.sum() / denominators.sum())
    if len(pairs) < 2:
        return Interval(value, None, None, len(pairs))
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(0, RESAMPLES, 1000):
        drawn = rng.integers(len(pairs), size=(1000, len(pairs)))
        found.append(numerators[drawn].sum(axis=1) / denominators[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(found), (0.025, 0.975))
    return never_certain(Interval(value, float(low), float(high), len(pairs)), within)


def never_certain(interval: Interval, within: tuple[float, float] | None) -> Interval:
    """The interval, or, if it has no width, that of prompts with equal values; without ``within`` unchanged."""
    if within is None or interval.low is None or interval.high is None or interval.high - interval.low > ALIKE:
        return interval
    if interval.prompts < 1:
        return Interval(interval.value, None, None, interval.prompts)
    return Interval(interval.value, *of_the_same(interval.value, interval.prompts, *within), interval.prompts)
