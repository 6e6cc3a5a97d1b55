"""Temperature scaling of the reward model's probabilities, evaluated on prompts that it was not fitted on.

    p = σ(Δ / T)        T minimizes −Σ [ t·log p + (1 − t)·log(1 − p) ] over one half of the held-out prompts

The other half evaluates it; then the halves change roles. A single factor changes no order, so neither accuracy nor PPO
depend on it: it corrects the reward model's confidence. Source: Guo et al. (arXiv 1706.04599).
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from triphase.reports.reward_quality import ScoredPair, reliability

_FEWEST_PROMPTS = 10
_LOWEST, _HIGHEST = math.log(0.05), math.log(20.0)
_STEPS = 60


@dataclass(frozen=True, slots=True)
class TemperatureScaling:
    """The effect of a temperature on the probabilities.

    Attributes:
        temperature: fitted to all held-out judgments; above 1 if the reward model is overconfident.
        error_before, error_after: expected calibration error, after by temperatures of the other half of the prompts.
        loss_before, loss_after: nats per judgment, likewise.
    """

    temperature: float
    error_before: float
    error_after: float
    loss_before: float
    loss_after: float


def temperature_scaling(pairs: Sequence[ScoredPair], *, scale: float, seed: int = 0) -> TemperatureScaling | None:
    """The temperature and its effect; None if there are too few prompts.

    ``scale`` converts the scores back to the unit in which they were trained.
    """
    prompts = sorted({pair.prompt_id for pair in pairs})
    if len(prompts) < _FEWEST_PROMPTS:
        return None
    random.Random(seed).shuffle(prompts)  # noqa: S311 - which half, not a secret
    half = set(prompts[: len(prompts) // 2])
    sides = [[pair for pair in pairs if (pair.prompt_id in half) == first] for first in (True, False)]
    fitted = [fit_temperature(side, scale=scale) for side in sides]
    scaled = [_cooled(pair, other) for side, other in zip(sides, fitted[::-1], strict=True) for pair in side]
    before, after = reliability(pairs, scale=scale), reliability(scaled, scale=scale)
    assert before is not None and after is not None  # noqa: S101 - there are pairs
    return TemperatureScaling(
        fit_temperature(pairs, scale=scale),
        before.error,
        after.error,
        _loss(pairs, scale),
        _loss(scaled, scale),
    )


def fit_temperature(pairs: Sequence[ScoredPair], *, scale: float) -> float:
    """The temperature with the lowest loss, between 1/20 and 20: bisection of the derivative by 1/T, which rises."""
    low, high = -_HIGHEST, -_LOWEST  # of log 1/T
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _slope(pairs, scale, math.exp(middle)) > 0:
            high = middle
        else:
            low = middle
    return math.exp(-(low + high) / 2)


def _slope(pairs: Sequence[ScoredPair], scale: float, inverse: float) -> float:
    margins = [scale * (pair.score_first - pair.score_second) for pair in pairs]
    return math.fsum(
        margin * (_sigmoid(inverse * margin) - pair.target) for margin, pair in zip(margins, pairs, strict=True)
    )


def _loss(pairs: Sequence[ScoredPair], scale: float) -> float:
    total = 0.0
    for pair in pairs:
        margin = scale * (pair.score_first - pair.score_second)
        total += pair.target * _softplus(-margin) + (1 - pair.target) * _softplus(margin)
    return total / len(pairs)


def _cooled(pair: ScoredPair, temperature: float) -> ScoredPair:
    return ScoredPair(
        pair.prompt_id,
        pair.score_first / temperature,
        pair.score_second / temperature,
        pair.target,
        pair.words_first,
        pair.words_second,
    )


def _sigmoid(x: float) -> float:
    return 0.5 * (1 + math.tanh(0.5 * x))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
