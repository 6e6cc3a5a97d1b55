"""A figure with its 95 % interval: the percentile bootstrap over prompts.

Prompts are drawn anew, not responses: responses to one prompt are alike, and an interval that took them as independent
would be too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
"""Bootstrap samples behind every interval."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the bounds between which 95 % of its bootstrap values lie. One prompt has no interval: None."""

    value: float
    low: float | None
    high: float | None
    prompts: int


def mean_over_prompts(values: Sequence[float], *, seed: int = 0) -> Interval | None:
    """The mean of one value a prompt; None where there is none."""
    return ratio_over_prompts(values, [1.0] * len(values), seed=seed)


def ratio_over_prompts(sums: Sequence[float], counts: Sequence[float], *, seed: int = 0) -> Interval | None:
    """Σ sums / Σ counts, where each prompt brings a sum and the number of things that it sums.

    None where nothing was counted. Prompts without any count say nothing and are left out.
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
    return Interval(value, float(low), float(high), len(pairs))
