"""Responses of several policies to the same prompts, two at a time: who wins, how certainly, and at equal length.

Pure functions of plain numbers. A prompt counts once, however many responses to it were compared; every interval is a
bootstrap over prompts.

Bradley–Terry ratings: P(i beats j) = σ(θ_i − θ_j), the maximum-likelihood θ with mean 0, in Elo points (400·θ/ln 10:
400 points are odds of 10 to 1). For each pair of policies half a prompt won and half a prompt lost is added to the
data, so that a policy that never loses has a finite rating.

Length-controlled win rate, after AlpacaEval 2 (arXiv 2404.04475): over the comparisons of one pair of policies

    P(first beats second) = σ(θ + φ·tanh((l_first − l_second) / s))        win rate at equal length = σ(θ)

with lengths l in characters and s the standard deviation of their differences; the same half prompts are added for θ,
and φ has a normal prior of deviation 3. Theirs adds a term for the difficulty of each instruction, estimated over all
models of a leaderboard; there are none here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triphase.reports.intervals import SHARE, Interval, mean_over_prompts, never_certain

RATING_RESAMPLES = 1000
"""Bootstrap samples behind the intervals of ratings and of length-controlled win rates."""
_ELO = 400 / log(10)
_NEWTON_STEPS, _LONGEST_STEP = 60, 2.0
_LEAST_OVERLAP, _PRIOR = 0.05, 3.0

Numbers = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Duel:
    """One comparison of two responses to one prompt: ``outcome`` is 1 if the first is better, ½ for a tie.

    ``longer`` is the length of the first minus that of the second, in characters.
    """

    prompt: str
    first: str
    second: str
    outcome: float
    longer: int


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """The win rate at equal length; None if one side is nearly always longer, so that it cannot be estimated.

    ``longer`` is the share of comparisons in which the first response is longer, equal lengths ½.
    """

    rate: Interval | None
    longer: float


def win_rate_of(duels: Sequence[Duel], first: str, second: str, *, seed: int = 0) -> Interval | None:
    """How often ``first`` beats ``second``, ties ½, each prompt with the same weight; None if they never met."""
    outcomes: dict[str, list[float]] = {}
    for duel in _between(duels, first, second):
        outcomes.setdefault(duel.prompt, []).append(duel.outcome)
    means = [float(np.mean(outcomes[prompt])) for prompt in sorted(outcomes)]
    return mean_over_prompts(means, seed=seed, within=SHARE)


def ratings_of(duels: Sequence[Duel], sides: Sequence[str], *, seed: int = 0) -> dict[str, Interval]:
    """The Bradley–Terry rating of each side in Elo points; empty if not all sides are connected by comparisons."""
    place = {side: number for number, side in enumerate(sides)}
    prompts = {prompt: number for number, prompt in enumerate(sorted({duel.prompt for duel in duels}))}
    wins, met = np.zeros((2, len(prompts), len(sides), len(sides)))
    for duel in duels:
        row, first, second = prompts[duel.prompt], place[duel.first], place[duel.second]
        wins[row, first, second] += duel.outcome
        wins[row, second, first] += 1 - duel.outcome
        met[row, first, second] += 1
        met[row, second, first] += 1
    shares = wins / np.maximum(met, 1)
    linked = np.linalg.matrix_power(np.eye(len(sides)) + (met.sum(axis=0) > 0), max(1, len(sides) - 1))
    if len(sides) < 2 or not (linked > 0).all():
        return {}
    drawn = _counts(len(prompts), seed)
    theta = _ELO * _bradley_terry(np.einsum("rp,pij->rij", drawn, shares))
    return {side: _interval(theta[:, number], len(prompts), None) for side, number in place.items()}


def length_controlled(duels: Sequence[Duel], first: str, second: str, *, seed: int = 0) -> LengthControlled | None:
    """The win rate of ``first`` over ``second`` at equal length; None if they never met."""
    found = _between(duels, first, second)
    if not found:
        return None
    gaps = np.array([duel.longer for duel in found], dtype=np.float64)
    prompts = {prompt: number for number, prompt in enumerate(sorted({duel.prompt for duel in found}))}
    rows = np.array([prompts[duel.prompt] for duel in found])
    weight = 1 / np.bincount(rows)[rows]
    longer = float(np.average((gaps > 0) + 0.5 * (gaps == 0), weights=weight))
    if not _LEAST_OVERLAP <= longer <= 1 - _LEAST_OVERLAP:
        return LengthControlled(None, longer)
    spread = float(np.std(gaps))
    design = np.stack([np.ones(len(gaps)), np.tanh(gaps / spread) if spread > 0 else np.zeros(len(gaps))], axis=1)
    outcomes = np.array([duel.outcome for duel in found])
    drawn = _counts(len(prompts), seed)
    theta = np.concatenate(
        [_logistic(design, outcomes, weight * part[:, rows])[:, 0] for part in np.array_split(drawn, 20)]
    )
    return LengthControlled(_interval(_sigmoid(theta), len(prompts), SHARE), longer)


def _between(duels: Sequence[Duel], first: str, second: str) -> list[Duel]:
    """The duels of two sides, from the first one's perspective."""
    own = [duel for duel in duels if (duel.first, duel.second) == (first, second)]
    return own + [
        Duel(duel.prompt, first, second, 1 - duel.outcome, -duel.longer)
        for duel in duels
        if (duel.first, duel.second) == (second, first)
    ]


def _counts(prompts: int, seed: int) -> Numbers:
    """(1 + resamples, P) how often each prompt occurs in the data itself, and in each bootstrap sample."""
    drawn = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=RATING_RESAMPLES)
    return np.concatenate([np.ones((1, prompts)), drawn.astype(np.float64)])


def _interval(values: Numbers, prompts: int, within: tuple[float, float] | None) -> Interval:
    """The first value with the interval of the others; none over a single prompt."""
    if prompts < 2:
        return Interval(float(values[0]), None, None, prompts)
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return never_certain(Interval(float(values[0]), float(low), float(high), prompts), within)


def _bradley_terry(wins: Numbers) -> Numbers:
    """(R, S, S) wins of row over column → (R, S) the maximum-likelihood θ with mean 0, by Newton's method."""
    resamples, count, _ = wins.shape
    met = (wins + wins.transpose(0, 2, 1)).sum(axis=0) > 0
    wins = wins + 0.5 * met
    games = wins + wins.transpose(0, 2, 1)
    theta = np.zeros((resamples, count))
    for _ in range(_NEWTON_STEPS):
        chance = _sigmoid(theta[:, :, None] - theta[:, None, :])
        gradient = (wins - games * chance).sum(axis=2)
        curvature = games * chance * (1 - chance)
        hessian = np.einsum("ri,ij->rij", curvature.sum(axis=2), np.eye(count)) - curvature
        step = _solved(hessian + 1 / count, gradient)  # θ is determined up to a constant: this fixes its mean
        theta += step
        if np.abs(step).max() < 1e-10:
            break
    centered: Numbers = theta - theta.mean(axis=1, keepdims=True)
    return centered


def _logistic(design: Numbers, outcomes: Numbers, weights: Numbers) -> Numbers:
    """(N, 2), (N,), (R, N) → (R, 2) the most likely (θ, φ), by Newton's method."""
    found = np.zeros((len(weights), 2))
    for _ in range(_NEWTON_STEPS):
        chance = _sigmoid(found @ design.T)
        even = _sigmoid(found[:, 0])
        gradient = (weights * (outcomes - chance)) @ design
        gradient[:, 0] += 0.5 - even  # half a prompt won and half a prompt lost, at equal length
        gradient[:, 1] -= found[:, 1] / _PRIOR**2
        hessian = np.einsum("rn,ni,nj->rij", weights * chance * (1 - chance), design, design, optimize=True)
        hessian[:, 0, 0] += even * (1 - even)
        hessian[:, 1, 1] += 1 / _PRIOR**2
        step = _solved(hessian, gradient)
        found += step
        if np.abs(step).max() < 1e-8:
            break
    return found


def _solved(hessian: Numbers, gradient: Numbers) -> Numbers:
    """One step of Newton's method for each resample, limited in length to avoid overshooting."""
    step: Numbers = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
    longest = np.abs(step).max(axis=1, keepdims=True)
    scaled: Numbers = step * np.minimum(1, _LONGEST_STEP / np.maximum(longest, 1e-300))
    return scaled


def _sigmoid(value: Any) -> Any:
    return 0.5 * (1 + np.tanh(0.5 * value))
