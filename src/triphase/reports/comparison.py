"""Policies compared on the same prompts: what each writes, and which is better by each criterion."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from triphase.reports.duels import Duel, LengthControlled, length_controlled, ratings_of, win_rate_of
from triphase.reports.intervals import SHARE, Interval
from triphase.reports.policy_comparison import mean_value


@dataclass(frozen=True, slots=True)
class Compared:
    """One response of one side, with its score by criterion (None without a score)."""

    side: str
    prompt_id: str
    prompt: str
    sample: int
    response: str
    finished: bool
    tokens: int
    reference_kl: float | None
    scores: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Labelers:
    """The labelers: their number, the number of their rankings, and on what share of pairs two of them agree."""

    names: int
    rankings: int
    agreement: Interval | None


@dataclass(frozen=True, slots=True)
class Judgment:
    """The verdicts of a pair judge for one criterion.

    Attributes:
        duels: the pairs that have a verdict.
        unjudged: the number of pairs without one.
        same: the number of ties because both responses are the same text; these are not judged.
        first: the share of verdicts for the first position, ties ½; None if no pair was judged.
        consistent: the share of pairs with the same verdict in both orders; None if each is shown in one.
        labelers: the labelers, if people judged.
    """

    duels: Sequence[Duel]
    unjudged: int
    same: int
    first: float | None
    consistent: float | None
    labelers: Labelers | None = None


@dataclass(frozen=True, slots=True)
class SideFindings:
    """Statistics of one side's responses."""

    name: str
    about: str
    prompts: int
    responses: int
    reference_kl: Interval | None
    tokens: Interval | None
    characters: Interval | None
    finished: Interval | None


@dataclass(frozen=True, slots=True)
class CriterionFindings:
    """The sides by one criterion.

    Attributes:
        means: the mean score of each side; empty if pairs were judged.
        wins: how often the first of two sides is better.
        ratings: in Elo points about a mean of 0.
        controlled: for each side except the first, its win rate over the first at equal length.
        without: responses without a score, or pairs without a verdict.
    """

    name: str
    about: str
    means: Mapping[str, Interval]
    wins: Mapping[tuple[str, str], Interval]
    ratings: Mapping[str, Interval]
    controlled: Mapping[str, LengthControlled]
    without: int
    judgment: Judgment | None = None


@dataclass(frozen=True, slots=True)
class ComparisonFindings:
    """All results of a comparison; the first side is the reference of the others."""

    sides: Sequence[SideFindings]
    criteria: Sequence[CriterionFindings]
    notes: Sequence[str]
    asked: Mapping[str, Any]


def side_findings(responses: Sequence[Compared], side: str, about: str, *, seed: int) -> SideFindings:
    """Statistics of one side's responses, each prompt with the same weight."""
    own = [each for each in responses if each.side == side]

    def mean(figure: Callable[[Compared], float | None], within: tuple[float, float] | None = None) -> Interval | None:
        found: dict[str, list[float]] = {}
        for each in own:
            value = figure(each)
            if value is not None:
                found.setdefault(each.prompt_id, []).append(value)
        return mean_value(found, seed=seed, within=within)

    return SideFindings(
        name=side,
        about=about,
        prompts=len({each.prompt_id for each in own}),
        responses=len(own),
        reference_kl=mean(lambda each: each.reference_kl),
        tokens=mean(lambda each: float(each.tokens)),
        characters=mean(lambda each: float(len(each.response))),
        finished=mean(lambda each: float(each.finished), SHARE),
    )


def by_scores(
    responses: Sequence[Compared], sides: Sequence[str], name: str, about: str, *, seed: int
) -> CriterionFindings:
    """The sides by a score: each response of one against each response of the other to the same prompt."""
    known: dict[str, dict[str, list[tuple[float, int]]]] = {side: {} for side in sides}
    without = 0
    for each in responses:
        score = each.scores.get(name)
        if score is None or not math.isfinite(score):
            without += 1
        else:
            known[each.side].setdefault(each.prompt_id, []).append((score, len(each.response)))
    duels = [
        Duel(prompt, first, second, 1.0 if ours > theirs else 0.5 if ours == theirs else 0.0, long - short)
        for first, second in combinations(sides, 2)
        for prompt in sorted(known[first].keys() & known[second].keys())
        for ours, long in known[first][prompt]
        for theirs, short in known[second][prompt]
    ]
    means = {
        side: mean
        for side in sides
        if (mean := mean_value({p: [score for score, _ in values] for p, values in known[side].items()}, seed=seed))
    }
    return _findings(name, about, means, duels, sides, without, seed)


def by_judgment(judgment: Judgment, sides: Sequence[str], name: str, about: str, *, seed: int) -> CriterionFindings:
    """The sides by a judge of pairs."""
    found = _findings(name, about, {}, judgment.duels, sides, judgment.unjudged, seed)
    return CriterionFindings(
        found.name, found.about, {}, found.wins, found.ratings, found.controlled, found.without, judgment
    )


def _findings(
    name: str,
    about: str,
    means: Mapping[str, Interval],
    duels: Sequence[Duel],
    sides: Sequence[str],
    without: int,
    seed: int,
) -> CriterionFindings:
    wins = {pair: rate for pair in combinations(sides, 2) if (rate := win_rate_of(duels, *pair, seed=seed))}
    controlled = {
        side: found for side in sides[1:] if (found := length_controlled(duels, side, sides[0], seed=seed)) is not None
    }
    return CriterionFindings(name, about, means, wins, ratings_of(duels, sides, seed=seed), controlled, without)


def against_first(found: CriterionFindings, first: str, side: str) -> Interval | None:
    """How often ``side`` beats the first side."""
    rate = found.wins.get((first, side))
    if rate is None:
        return None
    low, high = (None if bound is None else 1 - bound for bound in (rate.high, rate.low))
    return Interval(1 - rate.value, low, high, rate.prompts)


def plain_of(found: ComparisonFindings) -> dict[str, Any]:
    """The findings as plain values, for a JSON file; an unknown value is null."""
    return {
        "asked": dict(found.asked),
        "notes": list(found.notes),
        "sides": [
            {
                "name": side.name,
                "about": side.about,
                "prompts": side.prompts,
                "responses": side.responses,
                "reference_kl": _plain(side.reference_kl),
                "tokens": _plain(side.tokens),
                "characters": _plain(side.characters),
                "finished": _plain(side.finished),
            }
            for side in found.sides
        ],
        "criteria": [_plain_criterion(each) for each in found.criteria],
    }


def _plain_criterion(found: CriterionFindings) -> dict[str, Any]:
    judgment = found.judgment
    return {
        "name": found.name,
        "about": found.about,
        "without": found.without,
        "means": {side: _plain(mean) for side, mean in found.means.items()},
        "ratings_elo": {side: _plain(rating) for side, rating in found.ratings.items()},
        "win_rates": [
            {"first": first, "second": second, **(_plain(rate) or {})} for (first, second), rate in found.wins.items()
        ],
        "length_controlled_against_first": {
            side: {"rate": _plain(each.rate), "longer": each.longer} for side, each in found.controlled.items()
        },
        "judge": None
        if judgment is None
        else {
            "pairs": len(judgment.duels),
            "same_text": judgment.same,
            "first_place_share": judgment.first,
            "consistent": judgment.consistent,
            "people": _plain_people(judgment.labelers),
        },
    }


def _plain_people(labelers: Labelers | None) -> dict[str, Any] | None:
    if labelers is None:
        return None
    return {
        "labelers": labelers.names,
        "rankings": labelers.rankings,
        "agreement": _plain(labelers.agreement),
    }


def _plain(interval: Interval | None) -> dict[str, float | int | None] | None:
    if interval is None:
        return None
    return {"value": interval.value, "low": interval.low, "high": interval.high, "prompts": interval.prompts}
