"""Overoptimization: the functional forms of Gao, Schulman and Hilton (arXiv 2210.10760), fitted, with their peaks.

With d = √KL to the reference and R the gain in gold over it,

    best of n:   R(d) = d·(α − β·d)        peak at d* = α/(2β),        R* = α²/(4β)
    PPO:         R(d) = d·(α − β·ln d)     peak at d* = exp(α/β − 1),  R* = β·d*

Both are linear in α and β, and fitted by least squares; a form without a peak has β ≤ 0 (or, for best of n, α ≤ 0).
Intervals are those of the rescaled bootstrap (Rao and Wu 1988): S − 1 of S seeds and P − 1 of P prompts are drawn with
replacement, so that its variance is that of the mean also for S = 3; with one seed, only prompts are drawn.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, inf, isfinite, log, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Form = Literal["best-of-n", "ppo"]
Numbers = NDArray[np.floating[Any]]
RESAMPLES = 400
_LARGEST = 50.0
_FEWEST = 3
"""Distances from the reference that determine a form: one more than its coefficients."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A value with its 95 % interval; a bound is None if it is not finite, the value if there is none."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Fit:
    """A form fitted to gains in gold; ``peak`` is √KL there, ``height`` the gain, and ``seen`` the largest √KL."""

    form: Form
    alpha: Bounds
    beta: Bounds
    peak: Bounds
    height: Bounds
    seen: float

    def at(self, root_kl: float) -> float:
        """The fitted gain."""
        if self.alpha.value is None or self.beta.value is None:
            raise ValueError("no fit")
        return gain_at(self.form, self.alpha.value, self.beta.value, root_kl)

    @property
    def falls(self) -> bool:
        """Whether there is no peak because gold is below that of the reference, which is best."""
        return self.peak.value is None and self.at(self.seen) < 0


def gain_at(form: Form, alpha: float, beta: float, root_kl: float) -> float:
    """The gain according to a form; 0 at the reference."""
    if root_kl <= 0:
        return 0.0
    return root_kl * (alpha - beta * (root_kl if form == "best-of-n" else log(root_kl)))


def coefficients(form: Form, root_kl: Numbers, gain: Numbers) -> tuple[float, float] | None:
    """(α, β) by least squares; None if fewer than two distances differ."""
    d, gains = root_kl[root_kl > 0], gain[root_kl > 0]
    if len(np.unique(d)) < 2:
        return None
    design = np.stack([d, -d * d if form == "best-of-n" else -d * np.log(d)], axis=1)
    alpha, beta = np.linalg.lstsq(design, gains, rcond=None)[0]
    return float(alpha), float(beta)


def peak_of(form: Form, alpha: float, beta: float) -> tuple[float, float] | None:
    """(√KL, gain) at the peak; None if the form only rises, or only falls."""
    if beta <= 0 or (form == "best-of-n" and alpha <= 0):
        return None
    if form == "best-of-n":
        return alpha / (2 * beta), alpha * alpha / (4 * beta)
    if alpha / beta - 1 > _LARGEST:
        return None
    at = exp(alpha / beta - 1)
    return at, beta * at


def fit(
    form: Form, points: Callable[[np.random.Generator | None], tuple[Numbers, Numbers]], *, seed: int = 0
) -> Fit | None:
    """A form, fitted to the √KL and gains that ``points`` returns: for the data itself, or for a bootstrap sample drawn
    with the given generator. None if the data does not determine it: two distances lie on a curve of every shape.
    """
    root_kl, gain = points(None)
    found = coefficients(form, root_kl, gain)
    if found is None or len(np.unique(root_kl[root_kl > 0])) < _FEWEST:
        return None
    rng, drawn = np.random.default_rng(seed), list[tuple[float, float]]()
    for _ in range(RESAMPLES):
        again = coefficients(form, *points(rng))
        if again is not None:
            drawn.append(again)
    seen = float(root_kl.max())
    # A sample whose gain only falls is best at the reference; one that only rises, at no finite distance.
    peaks = [peak_of(form, *each) or ((0.0, 0.0) if gain_at(form, *each, seen) < 0 else (inf, inf)) for each in drawn]
    peak = peak_of(form, *found)
    return Fit(
        form,
        _bounds(found[0], [alpha for alpha, _ in drawn]),
        _bounds(found[1], [beta for _, beta in drawn]),
        _bounds(None if peak is None else peak[0], [at for at, _ in peaks]),
        _bounds(None if peak is None else peak[1], [height for _, height in peaks]),
        seen,
    )


def _bounds(value: float | None, drawn: Sequence[float]) -> Bounds:
    if not drawn:
        return Bounds(value, None, None)
    low, high = np.quantile(drawn, (0.025, 0.975), method="inverted_cdf")
    return Bounds(value, *(float(bound) if isfinite(bound) else None for bound in (low, high)))


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Every response of one PPO run, (N,) each: its iteration from 0, its prompt by number, and its scores."""

    iteration: NDArray[np.intp]
    prompt: NDArray[np.intp]
    reference_kl: Numbers
    proxy: Numbers
    gold: Numbers


@dataclass(frozen=True, slots=True)
class Path:
    """√KL, gain in proxy and gain in gold of each iteration, (T,) each; gains are over the first rollout."""

    root_kl: Numbers
    proxy: Numbers
    gold: Numbers


def path_of(rollouts: Rollouts, scale: float, weights: Numbers | None = None, *, of_proxy: float = 1.0) -> Path:
    """The path of one run; gold in units of ``scale``, proxy of ``of_proxy``. ``weights`` is how often each prompt is
    counted."""
    count = np.ones(len(rollouts.prompt)) if weights is None else weights[rollouts.prompt]
    total = np.bincount(rollouts.iteration, weights=count)
    have = total > 0

    def mean(values: Numbers) -> Numbers:
        sums: Numbers = np.bincount(rollouts.iteration, weights=count * values)[have] / total[have]
        return sums

    proxy, gold = mean(rollouts.proxy) / of_proxy, mean(rollouts.gold) / scale
    return Path(np.sqrt(np.maximum(0, mean(rollouts.reference_kl))), proxy - proxy[0], gold - gold[0])


def ppo_points(
    runs: Sequence[Rollouts], scales: Sequence[float], prompts: int
) -> Callable[[np.random.Generator | None], tuple[Numbers, Numbers]]:
    """For `fit`: the paths of all seeds together, or of seeds and prompts that are drawn."""

    def points(rng: np.random.Generator | None) -> tuple[Numbers, Numbers]:
        chosen = [(each, None) for each in range(len(runs))] if rng is None else list(drawn_of(rng, len(runs), prompts))
        paths = [path_of(runs[place], scales[place], weights) for place, weights in chosen]
        return np.concatenate([path.root_kl for path in paths]), np.concatenate([path.gold for path in paths])

    return points


def best_of_n_points(
    gains: Sequence[Numbers], root_kl: Numbers
) -> Callable[[np.random.Generator | None], tuple[Numbers, Numbers]]:
    """For `fit`: gains of best of n, one table (prompts, sizes) for each seed, all with the same prompts."""

    def points(rng: np.random.Generator | None) -> tuple[Numbers, Numbers]:
        prompts = len(gains[0])
        chosen = (
            [(each, None) for each in range(len(gains))] if rng is None else list(drawn_of(rng, len(gains), prompts))
        )
        tables = [np.average(gains[place], axis=0, weights=weights) for place, weights in chosen]
        return np.tile(root_kl, len(tables)), np.concatenate(tables)

    return points


def drawn_of(rng: np.random.Generator, seeds: int, prompts: int) -> Iterator[tuple[int, Numbers]]:
    """Seeds and prompts of one bootstrap sample: a seed's index, and how often each prompt is counted."""
    counted = prompts - 1 if prompts > 1 else 1
    weights = rng.multinomial(counted, np.full(prompts, 1 / prompts)).astype(np.float64)
    for place in rng.integers(seeds, size=max(1, seeds - 1)):
        yield int(place), weights


def root(kl: float) -> float:
    """√KL; an estimate below 0 counts as 0."""
    return sqrt(max(0.0, kl))
