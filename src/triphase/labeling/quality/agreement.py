"""The reliability of labels: agreement between labelers, with intervals.

Ties: ``pairwise_agreement`` uses the pairs of responses that two labelers both ranked. Pairs that either of them tied
are left out of ``value``, since a tied pair becomes no ordered comparison; ``with_ties`` counts every pair: the same
order or both tied 1, exactly one tied 0.5, opposite orders 0. Intervals are percentile bootstraps over prompts, because
pairs of one prompt are not independent. If all prompts have the same value, or there is one, these have no width, and
those of ``of_the_same`` are used. A statistic over nothing is None, never 0.
"""

import warnings
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import krippendorff
import numpy as np
from numpy.typing import NDArray

from triphase.monitoring.proportions import of_the_same
from triphase.records.types import Ranking

RESAMPLES = 1000
_ALIKE = 1e-12
Votes = dict[tuple[str, str, str], dict[str, int]]
"""(prompt, response, response) → labeler → 1 first preferred, −1 second, 0 tied."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share with its 95 % interval, and the number of observations."""

    value: float
    low: float
    high: float
    pairs: int
    prompts: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """Pairwise agreement: over strictly ordered pairs, and with ties (see the module)."""

    value: Estimate | None
    with_ties: Estimate | None


def pair_votes(rankings: Iterable[Ranking]) -> Votes:
    """Every labeler's order of every pair of responses; a labeler's later ranking of a prompt replaces the earlier."""
    votes: Votes = defaultdict(dict)
    for ranking in rankings:
        for first, second in combinations(sorted(ranking.places), 2):
            difference = ranking.places[second] - ranking.places[first]
            votes[ranking.prompt_id, first, second][ranking.labeler] = int(np.sign(difference))
    return dict(votes)


def pairwise_agreement(
    rankings: Iterable[Ranking],
    *,
    between: tuple[str, str] | None = None,
    of: str | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Agreement:
    """Share of response pairs on which two labelers agree, over all pairs of labelers.

    ``between`` restricts to two labelers, ``of`` to one labeler against each of the others.
    """
    strict: list[tuple[str, float]] = []
    tied: list[tuple[str, float]] = []
    for (prompt_id, _, _), by_labeler in pair_votes(rankings).items():
        for one, other in combinations(sorted(by_labeler), 2):
            if between is not None and {one, other} != set(between):
                continue
            if of is not None and of not in (one, other):
                continue
            a, b = by_labeler[one], by_labeler[other]
            tied.append((prompt_id, _tie_credit(a, b)))
            if a and b:
                strict.append((prompt_id, float(a == b)))
    return Agreement(
        share_by_prompt(strict, seed=seed, resamples=resamples), share_by_prompt(tied, seed=seed, resamples=resamples)
    )


def agreement_by_pair(
    rankings: Iterable[Ranking], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[tuple[str, str], Agreement]:
    """Pairwise agreement of each two labelers who ranked the same pair of responses."""
    all_rankings = list(rankings)
    found: dict[tuple[str, str], list[Ranking]] = {}
    names: dict[str, set[str]] = defaultdict(set)
    for ranking in all_rankings:
        names[ranking.prompt_id].add(ranking.labeler)
    for ranking in all_rankings:
        for other in names[ranking.prompt_id] - {ranking.labeler}:
            key = (min(ranking.labeler, other), max(ranking.labeler, other))
            found.setdefault(key, []).append(ranking)
    return {key: pairwise_agreement(found[key], between=key, seed=seed, resamples=resamples) for key in sorted(found)}


def share_by_prompt(
    values: Sequence[tuple[str, float]], *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate | None:
    """Mean of the values with its 95 % interval (see the module), resampling whole prompts; None over nothing."""
    if not values:
        return None
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for prompt_id, value in values:
        totals[prompt_id][0] += value
        totals[prompt_id][1] += 1.0
    table = np.array([totals[prompt_id] for prompt_id in sorted(totals)])
    mean = float(table[:, 0].sum() / table[:, 1].sum())
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(table), np.full(len(table), 1.0 / len(table)), size=resamples) @ table
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    if high - low < _ALIKE:
        low, high = of_the_same(mean, len(table))
    return Estimate(mean, float(low), float(high), len(values), len(table))


def krippendorff_alpha(
    table: Sequence[Sequence[float | None]], level: Literal["nominal", "ordinal", "interval"] = "nominal"
) -> float | None:
    """Krippendorff's alpha, 1 − observed / expected disagreement.

    Args:
        table: one row for each labeler, one column for each unit, None without a value.
        level: how values differ: nominal (equal or not) or ordinal (by rank).

    Returns:
        Alpha: 1 perfect, 0 as by chance; None if no unit has two values or all values are the same.
    """
    data = np.array([[np.nan if value is None else float(value) for value in row] for row in table], dtype=float)
    if data.size == 0:
        return None
    paired = (~np.isnan(data)).sum(axis=0) >= 2
    values = data[:, paired]
    if not paired.any() or len(np.unique(values[~np.isnan(values)])) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(krippendorff.alpha(reliability_data=data, level_of_measurement=level))


def ranking_alpha(rankings: Iterable[Ranking]) -> float | None:
    """Ordinal alpha of places: units are responses; a tie has the mean of the places it covers."""
    cells: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for ranking in rankings:
        for response, place in mean_places(ranking).items():
            cells[ranking.prompt_id, response][ranking.labeler] = place
    return _alpha_of(cells, "ordinal")


def pair_alpha(rankings: Iterable[Ranking]) -> float | None:
    """Nominal alpha of choices: units are pairs of responses, values first, second and tied."""
    votes = {key: {name: float(vote) for name, vote in given.items()} for key, given in pair_votes(rankings).items()}
    return _alpha_of(votes, "nominal")


def mean_places(ranking: Ranking) -> dict[str, float]:
    """Places 1 to the number of ranked responses; tied ones share the mean of the places they cover."""
    values = list(ranking.places.values())
    return {
        response: 1.0 + sum(other < place for other in values) + (values.count(place) - 1) / 2.0
        for response, place in ranking.places.items()
    }


def cohen_kappa(
    first: Sequence[Hashable], second: Sequence[Hashable], weights: Literal["none", "linear", "quadratic"] = "none"
) -> float | None:
    """Cohen's kappa of two labelers' categories for the same units, 1 − Σ w·observed / Σ w·expected.

    ``weights``: the disagreement of two categories is 1 (none), their distance (linear) or its square (quadratic), by
    rank among all categories. None over nothing, or if the expected disagreement is 0.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} categories against {len(second)}; give both labelers' answer for each unit")
    if not first:
        return None
    categories = sorted({*first, *second}, key=_sortable)
    index = {category: number for number, category in enumerate(categories)}
    observed = np.zeros((len(categories), len(categories)))
    for a, b in zip(first, second, strict=True):
        observed[index[a], index[b]] += 1.0 / len(first)
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0))
    weight = _weights(len(categories), weights)
    chance = float((weight * expected).sum())
    return None if chance == 0.0 else 1.0 - float((weight * observed).sum()) / chance


def pair_kappa(rankings: Iterable[Ranking], one: str, other: str) -> float | None:
    """Cohen's kappa of two labelers over the response pairs that both ranked (first, second, tied)."""
    both = [given for given in pair_votes(rankings).values() if one in given and other in given]
    return cohen_kappa([given[one] for given in both], [given[other] for given in both])


def _tie_credit(a: int, b: int) -> float:
    if a == b:
        return 1.0
    return 0.5 if a == 0 or b == 0 else 0.0


def _alpha_of(
    cells: dict[tuple[str, str], dict[str, float]] | dict[tuple[str, str, str], dict[str, float]],
    level: Literal["nominal", "ordinal"],
) -> float | None:
    names = sorted({name for given in cells.values() for name in given})
    units = [given for given in cells.values() if len(given) > 1]
    return krippendorff_alpha([[given.get(name) for given in units] for name in names], level)


def _weights(size: int, kind: Literal["none", "linear", "quadratic"]) -> NDArray[np.float64]:
    distance = np.abs(np.subtract.outer(np.arange(size), np.arange(size))).astype(float)
    if kind == "none":
        return (distance > 0).astype(float)
    return distance if kind == "linear" else distance**2


def _sortable(category: Hashable) -> tuple[str, object]:
    return type(category).__name__, category
