"""A labeler's statistics over time: by day if they have worked for at most two weeks, else by week."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from triphase.labeling.quality import labeler_quality
from triphase.labeling.quality.agreement import Estimate, pairwise_agreement
from triphase.records.types import Ranking
from triphase.store.answers import StoredAnswer

DAY, WEEK = 86400.0, 7 * 86400.0
_DAYS_APART = 14
MOST_PERIODS = 26
"""Maximum number of periods on the page; older ones are left out."""


@dataclass(frozen=True, slots=True)
class Period:
    """Statistics of a labeler from ``begin`` (seconds since the epoch) for ``length`` seconds; None was not
    measured."""

    begin: float
    length: float
    answers: int
    skipped: int
    median_seconds: float | None
    agreement: Estimate | None
    gold: Estimate | None
    consistency: Estimate | None


def periods_of(labeler: str, answers: Sequence[StoredAnswer], known: Mapping[str, Mapping[str, int]]) -> list[Period]:
    """The newest periods in which ``labeler`` answered, oldest first.

    Args:
        labeler: the labeler's name.
        answers: all answers of the store.
        known: prompt of a gold item → its places.
    """
    mine = [answer for answer in answers if answer.ranking.labeler == labeler]
    given = [answer for answer in mine if answer.status in ("active", "withdrawn")]
    times = [answer.ranking.submitted_at for answer in given]
    if not times:
        return []
    length = DAY if max(times) - min(times) <= _DAYS_APART * DAY else WEEK
    begun = min(times) - min(times) % DAY
    by_period: dict[int, list[StoredAnswer]] = defaultdict(list)
    for answer in [*given, *(answer for answer in mine if answer.status == "skipped")]:
        by_period[int((answer.ranking.submitted_at - begun) // length)].append(answer)
    others = [
        answer.ranking
        for answer in answers
        if answer.ranking.labeler != labeler and answer.status == "active" and answer.purpose == "label"
    ]
    first = [answer.ranking for answer in given if answer.purpose == "label"]
    return [
        _period(labeler, begun + number * length, length, by_period[number], first, others, known)
        for number in sorted(by_period)[-MOST_PERIODS:]
    ]


def _period(
    labeler: str, begin: float, length: float, answers: Sequence[StoredAnswer], first: Sequence[Ranking],
    others: Sequence[Ranking], known: Mapping[str, Mapping[str, int]],
) -> Period:  # fmt: skip
    of = {
        purpose: [answer.ranking for answer in answers if answer.purpose == purpose and answer.status != "skipped"]
        for purpose in ("label", "gold", "repeat")
    }
    prompts = {ranking.prompt_id for ranking in of["label"]}
    shared = [*of["label"], *(ranking for ranking in others if ranking.prompt_id in prompts)]
    return Period(
        begin=begin,
        length=length,
        answers=sum(map(len, of.values())),
        skipped=sum(answer.status == "skipped" for answer in answers),
        median_seconds=labeler_quality.median_seconds(ranking for each in of.values() for ranking in each),
        agreement=pairwise_agreement(shared, of=labeler).value,
        gold=labeler_quality.gold_accuracy(of["gold"], known),
        consistency=labeler_quality.self_consistency(first, of["repeat"]),
    )
