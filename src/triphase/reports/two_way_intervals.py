"""Means over seeds and prompts, with intervals for both: another seed, and other prompts.

Every seed responds to the same prompts, so values form a table y of S seeds and P prompts. In the two-way model y_sp =
μ + a_s + b_p + e_sp the mean has the variance σ_a²/S + σ_b²/P + σ_e²/(S·P), which the mean squares of the table
estimate without bias:

    v = (MS_seeds + MS_prompts − MS_rest) / (S·P)        interval = mean ± t(df)·√v

with the degrees of freedom of Satterthwaite,

    df = (v·S·P)² / (MS_seeds²/(S−1) + MS_prompts²/(P−1) + MS_rest²/((S−1)(P−1)))

If one of the two varies no more than the residual does, it counts as 0; if neither does, the residual is left. A
bootstrap over three seeds would be far too narrow: it knows ten samples of them, and its variance is too small by
a factor of S/(S−1).
"""

from collections.abc import Mapping, Sequence
from math import exp, inf, lgamma, log, pi, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from triphase.reports.intervals import SHARE, Interval, mean_over_prompts, never_certain

_NORMAL_FROM = 2000.0
_POINTS = 2001


def pooled(
    by_seed: Sequence[Mapping[str, float]], *, seed: int = 0, within: tuple[float, float] | None = None
) -> Interval | None:
    """The mean of one value for each seed and prompt, over the prompts that all seeds have; None if there is none.

    A single seed has the interval over prompts alone. ``seed`` is that of its bootstrap.
    """
    if not by_seed:
        return None
    shared = sorted(set(by_seed[0]).intersection(*by_seed))
    if not shared:
        return None
    if len(by_seed) == 1:
        return mean_over_prompts([by_seed[0][prompt] for prompt in shared], seed=seed, within=within)
    values = np.array([[values[prompt] for prompt in shared] for values in by_seed], dtype=np.float64)
    return never_certain(crossed_interval(values), within)


def pooled_share(by_seed: Sequence[Mapping[str, float]], *, seed: int = 0) -> Interval | None:
    """`pooled` of shares: their bounds are clipped to 0 and 1."""
    found = pooled(by_seed, seed=seed, within=SHARE)
    if found is None or found.low is None or found.high is None:
        return found
    return Interval(found.value, max(0.0, found.low), min(1.0, found.high), found.prompts)


def crossed_interval(values: NDArray[np.float64]) -> Interval:
    """(S, P) → the mean with its 95 % interval; S at least 2."""
    seeds, prompts = values.shape
    mean = float(values.mean())
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    of_seeds = prompts * float(np.var(rows, ddof=1))
    if prompts == 1:
        half = t_quantile(seeds - 1) * sqrt(of_seeds / seeds)
        return Interval(mean, mean - half, mean + half, prompts)
    of_prompts = seeds * float(np.var(columns, ddof=1))
    rest = values - rows[:, None] - columns[None, :] + mean
    of_rest = float((rest**2).sum()) / ((seeds - 1) * (prompts - 1))
    parts = [(of_seeds, 1.0, seeds - 1), (of_prompts, 1.0, prompts - 1), (of_rest, -1.0, (seeds - 1) * (prompts - 1))]
    if of_seeds <= of_rest and of_prompts <= of_rest:
        parts = [(of_rest, 1.0, (seeds - 1) * (prompts - 1))]
    elif of_seeds <= of_rest:
        parts = [parts[1]]
    elif of_prompts <= of_rest:
        parts = [parts[0]]
    total = sum(sign * square for square, sign, _ in parts)
    below = sum(square**2 / freedom for square, _, freedom in parts)
    freedom = total**2 / below if below > 0 else inf
    half = t_quantile(max(1.0, freedom)) * sqrt(max(0.0, total) / (seeds * prompts))
    return Interval(mean, mean - half, mean + half, prompts)


def interval_over_seeds(values: Sequence[float]) -> Interval | None:
    """The mean of one value per seed, ± t(S − 1)·s/√S; None if there is none, without bounds for one seed."""
    if not values:
        return None
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean, None, None, 0)
    half = t_quantile(len(values) - 1) * float(np.std(values, ddof=1)) / sqrt(len(values))
    return Interval(mean, mean - half, mean + half, 0)


def t_quantile(freedom: float, probability: float = 0.975) -> float:
    """The quantile of Student's t distribution, by bisection on the integral of its density (Simpson's rule)."""
    if freedom >= _NORMAL_FROM:
        return NormalDist().inv_cdf(probability)
    low, high = 0.0, 700.0
    while high - low > 1e-9 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if _above_zero(middle, freedom) < probability - 0.5 else (low, middle)
    return (low + high) / 2


def _above_zero(end: float, freedom: float) -> float:
    """P(0 < T < end). With t = √ν·tan u the density becomes cos^(ν−1) u, smooth over the whole line."""
    scale = lgamma((freedom + 1) / 2) - lgamma(freedom / 2) - 0.5 * log(pi)
    grid = np.linspace(0, np.arctan(end / sqrt(freedom)), _POINTS)
    height = np.cos(grid) ** (freedom - 1)
    weights = np.full(_POINTS, 2.0)
    weights[1::2] = 4.0
    weights[0] = weights[-1] = 1.0
    return exp(scale) * float(weights @ height) * float(grid[1]) / 3
