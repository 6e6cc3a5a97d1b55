"""Stores an answer, a skip, a flag or a draft from a labeler: checked, idempotent, and nothing is lost.

Submitting the same answer again (a retry after a lost response) returns the first one; another answer to the same slot
is refused, so that what is acknowledged is what is stored. An answer to a slot that went to another labeler after the
lease had expired is stored as ``late``: it does not count as a comparison, but is not lost either.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, String, bindparam, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from triphase.errors import TriphaseError
from triphase.labeling.work import audit
from triphase.labeling.work.answer_content import (
    Asks,
    Submission,
    by_id,
    carried_over,
    problem_of,
    problem_of_ratings,
    says_the_same,
)
from triphase.records.types import Ranking
from triphase.store.answers import Purpose, Status, StoredAnswer
from triphase.store.identity import ranking_id
from triphase.store.record_rows import answer_of, answer_row, as_json
from triphase.store.schema import assignments, campaigns, drafts, flags, guidelines, items, labelers, rankings

SKIP_REASONS = ("cannot decide", "all alike", "not my field", "unclear prompt", "other language", "other")
FLAG_REASONS = ("unsafe", "wrong language", "broken", "personal data", "other")


class AnswerError(TriphaseError):
    """An invalid answer, and what to do."""


class SlotGone(AnswerError):
    """The slot does not belong to the labeler (any more)."""


class Answered(AnswerError):
    """The labeler has answered this slot before, with another answer."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The result of storing an answer."""

    ranking_id: str
    status: Literal["active", "late"]


def submit(connection: Connection, labeler: str, assignment_id: int, submission: Submission, *, now: float) -> Stored:
    """Store an answer to a slot that the labeler holds."""
    slot = _slot(connection, labeler, assignment_id)
    before = connection.execute(_BEFORE, {"slot_id": assignment_id, "me": labeler}).all()
    identity = ranking_id(slot.prompt_id, labeler, 0, assignment_id)
    standing = [row for row in before if row.status != "withdrawn"]
    if standing:
        return _again(standing, submission)
    if before:
        identity = ranking_id(slot.prompt_id, labeler, 0, [assignment_id, now])
    if slot.labeler != labeler:
        raise SlotGone("this item went to another labeler after your time for it had run out; take the next one")
    if slot.state != "leased":
        raise SlotGone("this item is closed; take the next one")
    order: list[str] = json.loads(slot.order_shown)
    answer = _answer(connection, slot, labeler, identity, order, submission, now=now)
    connection.execute(_DONE, {"slot_id": assignment_id})
    connection.execute(insert(rankings), answer_row(answer))
    return Stored(identity, "active")


def submit_late(
    connection: Connection,
    labeler: str,
    assignment_id: int,
    order: Sequence[str],
    submission: Submission,
    *,
    now: float,
) -> Stored:
    """Store an answer to a slot that has gone to someone else, outside the comparisons."""
    slot = _slot(connection, labeler, assignment_id)
    identity = ranking_id(slot.prompt_id, labeler, 0, assignment_id)
    before = connection.execute(select(rankings).where(rankings.c.id == identity)).first()
    if before is not None:
        return _again([before], submission)
    answer = _answer(connection, slot, labeler, identity, list(order), submission, now=now, status="late")
    connection.execute(insert(rankings), answer_row(answer))
    return Stored(identity, "late")


def correct(
    connection: Connection,
    labeler: str,
    corrected: str,
    submission: Submission,
    *,
    now: float,
    asks: Asks | None = None,
) -> Stored:
    """Replace an earlier answer of the labeler; the old one stays in the store as superseded.

    Values that the page does not collect (any more), according to ``asks``, stay those of the old answer.
    """
    old = connection.execute(
        select(rankings).where(rankings.c.id == corrected, rankings.c.labeler == labeler).with_for_update()
    ).first()
    if old is None:
        raise AnswerError("this answer is not yours; reload the page")
    rounds = select(func.count()).where(rankings.c.labeler == labeler, rankings.c.assignment_id == old.assignment_id)
    done: int = connection.execute(rounds).scalar_one()
    before = answer_of(old)
    if asks is not None:
        submission = carried_over(before, submission, asks)
    if old.status == "superseded":
        return _same_correction(connection, old, submission)
    if old.status != "active":
        raise AnswerError(f"this answer is {old.status} and cannot be changed")
    identity = ranking_id(old.prompt_id, labeler, done, old.assignment_id)
    answer = _answer(
        connection, old, labeler, identity, list(before.ranking.order_shown), submission, now=now,
        assignment_id=old.assignment_id,
    )  # fmt: skip
    connection.execute(update(rankings).where(rankings.c.id == old.id).values(status="superseded"))
    connection.execute(insert(rankings), answer_row(answer))
    audit.note(
        connection, at=now, who=labeler, action=audit.CORRECTED, subject=old.prompt_id,
        before={"ranking": old.id, "places": before.ranking.places},
        after={"ranking": identity, "places": answer.ranking.places},
    )  # fmt: skip
    return Stored(identity, "active")


def skip(connection: Connection, labeler: str, assignment_id: int, reason: str, note: str, *, now: float) -> None:
    """Return a slot with a reason; it opens for others, and never goes to this labeler again."""
    if reason not in SKIP_REASONS:
        raise AnswerError(f"{reason!r} is not a reason; choose one of: {', '.join(SKIP_REASONS)}")
    slot = _slot(connection, labeler, assignment_id)
    identity = ranking_id(slot.prompt_id, labeler, 0, f"skip {assignment_id}")
    before = connection.execute(select(rankings).where(rankings.c.id == identity)).first()
    if before is not None:
        if (before.skip_reason, before.note) != (reason, note):
            raise Answered(f"you have skipped this item before ({before.skip_reason}), and that is final")
        return
    if slot.labeler != labeler or slot.state != "leased":
        raise SlotGone("this item is no longer assigned to you; take the next one")
    ranking = Ranking(identity, slot.prompt_id, labeler, {}, tuple(json.loads(slot.order_shown)), now, None, note)
    answer = StoredAnswer(
        ranking, slot.purpose, "skipped", assignment_id, latest_guideline(connection, slot.campaign),
        skip_reason=reason, campaign=slot.campaign,
    )  # fmt: skip
    connection.execute(insert(rankings), answer_row(answer))
    opened: dict[str, Any] = {"state": "open", "labeler": None, "leased_at": None, "expires_at": None}
    if slot.purpose != "label":
        opened = {"state": "closed"}
    connection.execute(update(assignments).where(assignments.c.id == assignment_id).values(**opened))


def flag(
    connection: Connection,
    labeler: str,
    assignment_id: int,
    position: int | None,
    reason: str,
    note: str,
    *,
    now: float,
) -> None:
    """Report a prompt, or the response at a position, to the lead."""
    if reason not in FLAG_REASONS:
        raise AnswerError(f"{reason!r} is not a reason; choose one of: {', '.join(FLAG_REASONS)}")
    slot = _slot(connection, labeler, assignment_id)
    order = json.loads(slot.order_shown or "[]")
    if slot.labeler != labeler:
        raise SlotGone("this item is no longer assigned to you; take the next one")
    if position is not None and not 0 <= position < len(order):
        raise AnswerError(f"there is no response {position + 1}; this item has {len(order)}")
    values = {
        "prompt_id": slot.prompt_id, "response_id": None if position is None else order[position],
        "labeler": labeler, "reason": reason, "note": note, "created_at": now,
    }  # fmt: skip
    connection.execute(insert(flags), values)


def save_draft(
    connection: Connection, labeler: str, assignment_id: int, content: Mapping[str, Any], *, now: float
) -> bool:
    """Store a draft; False if the slot does not belong to the labeler any more."""
    holds = select(assignments.c.id).where(
        assignments.c.id == assignment_id, assignments.c.labeler == labeler, assignments.c.state == "leased"
    )
    if connection.execute(holds).first() is None:
        return False
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    row = {"assignment_id": assignment_id, "labeler": labeler, "content": as_json(dict(content)), "updated_at": now}
    statement = dialect.insert(drafts).values(row)
    changed = {"content": row["content"], "updated_at": now}
    connection.execute(statement.on_conflict_do_update(index_elements=["assignment_id", "labeler"], set_=changed))
    return True


def latest_guideline(connection: Connection, campaign: str) -> int | None:
    """The newest version of a campaign's guidelines, or of the main task's if it has none; None if there are none."""
    found: int | None = connection.execute(_GUIDELINE, {"campaign": campaign}).scalar()
    return found


def _newest(campaign: ColumnElement[str]) -> ColumnElement[Any]:
    of = [select(func.max(guidelines.c.version)).where(guidelines.c.campaign == name) for name in (campaign, "")]
    return func.coalesce(*(each.scalar_subquery() for each in of))


def _task(campaign: ColumnElement[str]) -> ColumnElement[Any]:
    return select(campaigns.c.task).where(campaigns.c.name == campaign).scalar_subquery()


# Built once, since they are run for every answer.
_SLOT = (
    select(
        assignments.c.id, assignments.c.item_id, assignments.c.purpose, assignments.c.state, assignments.c.labeler,
        assignments.c.leased_at, assignments.c.order_shown, items.c.prompt_id, items.c.response_ids, labelers.c.status,
        assignments.c.campaign, _newest(assignments.c.campaign).label("guideline"),
        _task(assignments.c.campaign).label("task"),
    )
    .join(items, items.c.id == assignments.c.item_id)
    .join(labelers, labelers.c.name == bindparam("me", type_=String))
    .where(assignments.c.id == bindparam("slot_id"))
    .with_for_update(of=assignments)
)  # fmt: skip
_BEFORE = select(rankings).where(
    rankings.c.assignment_id == bindparam("slot_id"), rankings.c.labeler == bindparam("me", type_=String),
    rankings.c.status != "skipped",
)  # fmt: skip
_DONE = update(assignments).where(assignments.c.id == bindparam("slot_id")).values(state="done")
_GUIDELINE = select(_newest(bindparam("campaign", type_=String)))
_TASK = select(_task(bindparam("campaign", type_=String)))


def _slot(connection: Connection, labeler: str, assignment_id: int) -> Row[*tuple[Any, ...]]:
    slot = connection.execute(_SLOT, {"me": labeler, "slot_id": assignment_id}).first()
    if slot is None:
        raise SlotGone("there is no such item; reload the page")
    if slot.status != "active":
        raise AnswerError("your account is paused, and your work so far is kept; ask the lead")
    return slot


def _answer(
    connection: Connection, slot: Row[*tuple[Any, ...]], labeler: str, identity: str, order: list[str],
    submission: Submission, *, now: float, status: Status = "active", assignment_id: int | None = None,
) -> StoredAnswer:  # fmt: skip
    task = slot.task if hasattr(slot, "task") else connection.execute(_TASK, {"campaign": slot.campaign}).scalar()
    problem = problem_of(submission, len(order)) or (problem_of_ratings(submission) if task == "rating" else None)
    if problem:
        raise AnswerError(problem)
    places = {id_: place for id_, place in zip(order, submission.places, strict=True) if place is not None}
    quality = by_id(order, submission.quality)
    seconds = None if submission.seconds is None else round(submission.seconds, 2)
    leased_at = getattr(slot, "leased_at", None)
    if seconds is not None and leased_at is not None and now >= leased_at:  # the clock may have gone back
        seconds = min(seconds, round(now - leased_at + 2.0, 2))
    ranking = Ranking(identity, slot.prompt_id, labeler, places, tuple(order), now, seconds, submission.note)
    purpose: Purpose = slot.purpose
    guideline = slot.guideline if hasattr(slot, "guideline") else latest_guideline(connection, slot.campaign)
    rated = {name: by_id(order, values) for name, values in submission.ratings.items()}
    return StoredAnswer(
        ranking, purpose, status, assignment_id or slot.id, guideline, submission.strength, None, quality,
        ratings={name: values for name, values in sorted(rated.items()) if values},
        rationale=submission.rationale, rewrites=by_id(order, submission.rewrites),
        campaign=slot.campaign,
    )  # fmt: skip


def _again(before: Sequence[Row[*tuple[Any, ...]]], submission: Submission) -> Stored:
    """The result for an answer that is submitted again; a different answer is refused."""
    for row in before:
        if says_the_same(row, submission):
            return Stored(row.id, "late" if row.status == "late" else "active")
    raise Answered("you have already answered this item differently; press U to open that answer and change it")


def _same_correction(connection: Connection, old: Row[*tuple[Any, ...]], submission: Submission) -> Stored:
    newest = connection.execute(
        select(rankings).where(
            rankings.c.assignment_id == old.assignment_id, rankings.c.labeler == old.labeler,
            rankings.c.status == "active",
        )
    ).first()  # fmt: skip
    if newest is not None and says_the_same(newest, submission):
        return Stored(newest.id, "active")
    raise Answered("this answer was already corrected; open the newest one")
