"""Statistics for the lead: progress with forecast, agreement, and each labeler's record."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from sqlalchemy import Connection, func, or_, select

from triphase.labeling.quality import labeler_quality
from triphase.labeling.quality.agreement import (
    Agreement,
    Estimate,
    agreement_by_pair,
    pair_alpha,
    pair_kappa,
    pairwise_agreement,
    ranking_alpha,
)
from triphase.labeling.quality.over_time import Period, periods_of
from triphase.records.types import Ranking
from triphase.store import Store
from triphase.store.answers import StoredAnswer
from triphase.store.schema import assignments, campaigns, flags, items, labelers, responses

_DAY = 86400.0
_SITTING_GAP = 1800.0
"""A pause longer than this ends a session; only sessions count as working time in the forecast."""


@dataclass(frozen=True, slots=True)
class LabelingProgress:
    """Slots and answers. ``seconds_left``: forecast of the time until every slot is filled, at the recent pace."""

    items: int
    slots: int
    filled: int
    leased: int
    open_flags: int
    per_hour: float | None
    seconds_left: float | None
    by_day: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class LabelerRecord:
    """Statistics of one labeler's answers; None if nothing was measured."""

    name: str
    role: str
    status: str
    answers: int
    skipped: int
    flagged: int
    corrected: int
    median_seconds: float | None
    agreement: Agreement
    gold: Estimate | None
    consistency: Estimate | None
    position: Estimate | None
    length: Estimate | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """All statistics of a store at one moment."""

    progress: LabelingProgress
    rankings: int
    overlapping_prompts: int
    agreement: Agreement
    alpha_places: float | None
    alpha_pairs: float | None
    position: Estimate | None
    length: Estimate | None
    median_seconds: float | None = None
    by_pair: Mapping[tuple[str, str], Agreement] = field(default_factory=dict)
    kappas: Mapping[tuple[str, str], float | None] = field(default_factory=dict)
    labelers: tuple[LabelerRecord, ...] = ()


def collect(store: Store, now: float, campaign: str | None = None) -> Statistics:
    """Compute all statistics of the store: of the main task (empty) or one campaign, or by default of all together.

    Agreement is computed within a campaign: its guidelines are its own.
    """
    every = [one for one in within_campaigns(store.answers(counted=False)) if campaign in (None, one.campaign)]
    with store.reading() as connection:
        progress = _progress(connection, every, now, campaign)
        known = _gold(connection)
        people = connection.execute(select(labelers).order_by(labelers.c.name)).all()
        words = {row.id: len(row.text.split()) for row in connection.execute(select(responses.c.id, responses.c.text))}
        flagged = Counter(connection.execute(select(flags.c.labeler)).scalars())
    active = [answer for answer in every if answer.status == "active"]
    counted = [answer.ranking for answer in active if answer.purpose == "label"]
    labelers_of: dict[str, set[str]] = defaultdict(set)
    for ranking in counted:
        labelers_of[ranking.prompt_id].add(ranking.labeler)
    overlapping = [ranking for ranking in counted if len(labelers_of[ranking.prompt_id]) > 1]
    by_pair = agreement_by_pair(overlapping)
    records = tuple(
        _record(
            person, [one for one in every if one.ranking.labeler == person.name], overlapping, known, words, flagged
        )
        for person in people
    )
    return Statistics(
        progress=progress,
        rankings=len(counted),
        overlapping_prompts=sum(len(names) > 1 for names in labelers_of.values()),
        agreement=pairwise_agreement(overlapping),
        alpha_places=ranking_alpha(overlapping),
        alpha_pairs=pair_alpha(overlapping),
        position=labeler_quality.position_bias(counted),
        length=labeler_quality.length_bias(counted, words),
        median_seconds=labeler_quality.median_seconds(counted),
        by_pair=by_pair,
        kappas={pair: pair_kappa(overlapping, *pair) for pair in by_pair},
        labelers=tuple(record for record in records if record.role == "labeler" or record.answers),
    )


def within_campaigns(answers: Sequence[StoredAnswer]) -> list[StoredAnswer]:
    """The answers, with a prompt counted separately in each campaign."""
    return [
        replace(one, ranking=replace(one.ranking, prompt_id=_apart(one.ranking.prompt_id, one.campaign)))
        if one.campaign else one
        for one in answers
    ]  # fmt: skip


def _apart(prompt_id: str, campaign: str) -> str:
    """The key of a prompt within a campaign; in the main task its id."""
    return f"{prompt_id}\0{campaign}" if campaign else prompt_id


def labeler_periods(store: Store, name: str) -> list[Period]:
    """One labeler's statistics over time."""
    with store.reading() as connection:
        known = _gold(connection)
    return periods_of(name, within_campaigns(store.answers(counted=False)), known)


def _record(
    person: object,
    mine: Sequence[StoredAnswer],
    overlapping: Sequence[Ranking],
    known: Mapping[str, Mapping[str, int]],
    words: Mapping[str, int],
    flagged: Mapping[str, int],
) -> LabelerRecord:
    name, role, status = (str(getattr(person, part)) for part in ("name", "role", "status"))
    standing = [answer for answer in mine if answer.status in ("active", "withdrawn")]
    of = {
        purpose: [answer.ranking for answer in standing if answer.purpose == purpose]
        for purpose in ("label", "gold", "repeat")
    }
    return LabelerRecord(
        name=name,
        role=role,
        status=status,
        answers=len(standing),
        skipped=sum(answer.status == "skipped" for answer in mine),
        flagged=flagged.get(name, 0),
        corrected=sum(answer.status == "superseded" for answer in mine),
        median_seconds=labeler_quality.median_seconds(answer.ranking for answer in standing),
        agreement=_with_others(name, overlapping),
        gold=labeler_quality.gold_accuracy(of["gold"], known),
        consistency=labeler_quality.self_consistency(of["label"], of["repeat"]),
        position=labeler_quality.position_bias(of["label"]),
        length=labeler_quality.length_bias(of["label"], words),
    )


def _with_others(name: str, overlapping: Sequence[Ranking]) -> Agreement:
    """Agreement of one labeler with each of the others on the same prompts, pooled."""
    shared = {ranking.prompt_id for ranking in overlapping if ranking.labeler == name}
    return pairwise_agreement((one for one in overlapping if one.prompt_id in shared), of=name)


def _gold(connection: Connection) -> dict[str, dict[str, int]]:
    query = select(items.c.prompt_id, items.c.gold_places, items.c.campaign).where(items.c.kind == "gold")
    return {_apart(row.prompt_id, row.campaign): json.loads(row.gold_places) for row in connection.execute(query)}


def _progress(
    connection: Connection, every: Sequence[StoredAnswer], now: float, campaign: str | None
) -> LabelingProgress:
    going = select(campaigns.c.name).where(campaigns.c.state == "active")
    wanted_now = or_(assignments.c.state == "done", assignments.c.campaign == "", assignments.c.campaign.in_(going))
    of = assignments.c.campaign == campaign if campaign is not None else wanted_now
    slots: dict[str, int] = dict(
        connection.execute(
            select(assignments.c.state, func.count())
            .where(assignments.c.purpose == "label", of)
            .group_by(assignments.c.state)
        ).all()
    )
    item_count = connection.execute(
        select(func.count()).where(
            items.c.kind == "label", *([] if campaign is None else [items.c.campaign == campaign])
        )
    ).scalar_one()
    open_flags = connection.execute(select(func.count()).where(flags.c.resolved_at.is_(None))).scalar_one()
    times = [
        answer.ranking.submitted_at for answer in every
        if answer.status == "active" and answer.purpose == "label" and answer.assignment_id is not None
    ]  # fmt: skip
    wanted = sum(slots.get(state, 0) for state in ("open", "leased"))
    rate = pace(times)
    days = Counter(int(time // _DAY) for time in times)
    return LabelingProgress(
        items=item_count,
        slots=wanted + slots.get("done", 0),
        filled=slots.get("done", 0),
        leased=slots.get("leased", 0),
        open_flags=open_flags,
        per_hour=None if rate is None else 3600.0 * rate,
        seconds_left=None if rate is None else wanted / rate,
        by_day=tuple((day, days[day]) for day in range(min(days), max(days) + 1))[-30:] if days else (),
    )


def pace(times: Sequence[float]) -> float | None:
    """Answers per second over the last 500, without pauses of more than half an hour; None with too little data."""
    recent = sorted(times)[-500:]
    working = sum(later - earlier for earlier, later in pairwise(recent) if later - earlier < _SITTING_GAP)
    return (len(recent) - 1) / working if len(recent) > 5 and working > 0 else None
