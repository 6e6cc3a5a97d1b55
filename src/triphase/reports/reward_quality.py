"""The quality of the reward model on held-out comparisons: accuracy, calibration, and its preference for length.

Pure functions of the lines of reward/heldout.jsonl. Accuracy needs context: it is shown with the "longer wins" baseline
and the labelers' own noise ceiling.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triphase.reports.intervals import DIFFERENCE, SHARE, Interval, mean_over_prompts, ratio_over_prompts

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """One held-out comparison: two responses' scores and lengths, and the probability that the first is preferred."""

    prompt_id: str
    score_first: float
    score_second: float
    target: float
    words_first: int
    words_second: int


@dataclass(frozen=True, slots=True)
class ReliabilityBar:
    """Comparisons with a predicted probability in [low, high): their number, mean prediction, share truly preferred."""

    low: float
    high: float
    count: int
    predicted: float
    observed: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """Predicted against observed preference; ``error`` (the ECE) is the mean distance of the two over comparisons."""

    bins: tuple[ReliabilityBar, ...]
    error: float


def accuracy(pairs: Sequence[ScoredPair], *, seed: int = 0) -> Interval | None:
    """The share of comparisons that the score orders as the labelers did.

    A target above ½ means the first is preferred, whatever its size; targets of ½ are left out; equal scores count ½.
    """
    return _agreement(pairs, lambda pair: pair.score_first - pair.score_second, seed)


def longer_wins(pairs: Sequence[ScoredPair], *, seed: int = 0) -> Interval | None:
    """The accuracy of a rule that prefers the response with more words: a baseline for a reward model."""
    return _agreement(pairs, lambda pair: pair.words_first - pair.words_second, seed)


def like_length(pairs: Sequence[ScoredPair]) -> list[ScoredPair]:
    """The comparisons of two responses of nearly the same length: at most a tenth, or one word, apart."""
    return [
        pair
        for pair in pairs
        if abs(pair.words_first - pair.words_second) <= max(1.0, 0.1 * max(pair.words_first, pair.words_second))
    ]


def reliability(pairs: Sequence[ScoredPair], *, scale: float = 1.0, bins: int = 10) -> Reliability | None:
    """σ(scale · score difference) against the targets, in bins of equal width over 0 … 1.

    ``scale`` is the standard deviation by which calibration divided the scores: σ is a probability only for the scores
    as trained.

    Every comparison counts in both orders, so that the result does not depend on which response was called first.
    Targets of ½ count too: a tie is an even chance.
    """
    if not pairs:
        return None
    margins = scale * np.array([pair.score_first - pair.score_second for pair in pairs])
    targets = np.array([pair.target for pair in pairs])
    predicted = np.concatenate((_sigmoid(margins), _sigmoid(-margins)))
    observed = np.concatenate((targets, 1 - targets))
    place = np.minimum((predicted * bins).astype(int), bins - 1)
    found = []
    for number in range(bins):
        here = place == number
        if here.any():
            found.append(
                ReliabilityBar(
                    number / bins,
                    (number + 1) / bins,
                    int(here.sum()),
                    float(predicted[here].mean()),
                    float(observed[here].mean()),
                )
            )
    error = sum(found_bin.count * abs(found_bin.predicted - found_bin.observed) for found_bin in found) / len(predicted)
    return Reliability(tuple(found), error)


def length_correlation(pairs: Sequence[ScoredPair], *, seed: int = 0) -> Interval | None:
    """Spearman's rank correlation of score and word count among the responses to one prompt, averaged over prompts.

    Prompts whose responses all have one length or one score carry no information and are left out.
    """
    responses: defaultdict[str, set[tuple[float, int]]] = defaultdict(set)
    for pair in pairs:
        responses[pair.prompt_id] |= {(pair.score_first, pair.words_first), (pair.score_second, pair.words_second)}
    found = []
    for prompt in sorted(responses):
        ordered = sorted(responses[prompt])
        value = spearman([score for score, _ in ordered], [words for _, words in ordered])
        if value is not None:
            found.append(value)
    return mean_over_prompts(found, seed=seed, within=DIFFERENCE)


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's ρ: Pearson's correlation of ranks, ties with their mean rank. None if one side is constant."""
    ranks = [_ranks(np.asarray(side, dtype=np.float64)) for side in (first, second)]
    centered = [side - side.mean() for side in ranks]
    scale = float(np.sqrt((centered[0] ** 2).sum() * (centered[1] ** 2).sum()))
    return float((centered[0] * centered[1]).sum()) / scale if scale > 0 else None


def is_right(difference: float, target: float) -> float:
    """1 if the difference of first and second has the sign of the preference, ½ if it is 0, else 0."""
    value = difference if target > 0.5 else -difference
    return 1.0 if value > 0 else 0.5 if value == 0 else 0.0


def _agreement(pairs: Sequence[ScoredPair], difference: Callable[[ScoredPair], float], seed: int) -> Interval | None:
    right: defaultdict[str, float] = defaultdict(float)
    counted: defaultdict[str, int] = defaultdict(int)
    for pair in pairs:
        if pair.target != 0.5:
            right[pair.prompt_id] += is_right(difference(pair), pair.target)
            counted[pair.prompt_id] += 1
    prompts = sorted(counted)
    sums, counts = [right[key] for key in prompts], [counted[key] for key in prompts]
    return ratio_over_prompts(sums, counts, seed=seed, within=SHARE)


def _ranks(values: Array) -> Array:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank: Array = last - (counts - 1) / 2
    return mean_rank[place]


def _sigmoid(margins: Array) -> Array:
    halves: Array = 0.5 * (1 + np.tanh(0.5 * margins))
    return halves
