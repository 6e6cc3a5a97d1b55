"""Assignment of work: slots, leases, gold items and repeats.

A slot is one requested answer. Taking one is an update of its row that succeeds for one labeler only, so no two people
hold the same slot, and an item never gets more answers than it has slots. A lease that has expired can be taken by
anyone; until then its holder may still submit.
"""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Row,
    ScalarSelect,
    Select,
    String,
    and_,
    bindparam,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from triphase.errors import TriphaseError
from triphase.settings.schema import LabelingSettings
from triphase.store.record_rows import as_json
from triphase.store.schema import assignments, campaigns, drafts, items, labelers, rankings

_Slot = Row[*tuple[Any, ...]]
_TRIES = 20
CLOCK_SLACK_SECONDS = 60.0
"""Maximum difference of the clocks of two servers of one store."""
REPEAT_GAP = 5
"""Minimum number of other answers between an item and its repetition."""
_REPEATABLE = 200
"""Only this many of the last answers are repeated."""


class NotNow(TriphaseError):
    """Why a labeler gets no item: paused."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """An item assigned to a labeler."""

    id: int
    item_id: int
    prompt_id: str
    purpose: str
    order_shown: tuple[str, ...]
    campaign: str
    expires_at: float
    draft: dict[str, Any] | None


def next_assignment(
    connection: Connection, labeler: str, settings: LabelingSettings, *, seed: int, now: float
) -> Assignment | None:
    """The item that the labeler holds, else a new one; None if nothing is left for them."""
    expires = now + settings.lease_minutes * 60.0
    state = connection.execute(_STATE, {"me": labeler, "now": now, "until": expires}).one()
    if state.status != "active":
        raise NotNow("you are paused: the lead will tell you when there is more to do")
    held = _held(connection, labeler)
    if held is None or not connection.execute(_RENEW, {"renewed": held.id, "me": labeler, "until": expires}).rowcount:
        held = _take(connection, labeler, settings, seed, now, state)
    if held is None:
        return None
    return Assignment(
        held.id, held.item_id, held.prompt_id, held.purpose, tuple(json.loads(held.order_shown)), held.campaign,
        expires,
        json.loads(held.draft) if held.draft else None,
    )  # fmt: skip


def order_for(
    seed: int, item_id: int, labeler: str, response_ids: list[str], *, not_like: str | None = None
) -> list[str]:
    """The order in which a labeler sees an item: random, fixed by the seed; a repeat differs from ``not_like``."""
    digest = hashlib.sha256(repr((seed, item_id, labeler, not_like is not None)).encode()).digest()
    draw = random.Random(digest)  # noqa: S311 (an order, not a secret)
    order = sorted(response_ids)
    draw.shuffle(order)
    if not_like is not None and order == json.loads(not_like):
        order.reverse()
    return order


# The statements of the common path are built once: building them again would take longer than running them. They are
# few, since on PostgreSQL each one is a round trip to the server.
_ME, _NOW = bindparam("me", type_=String), bindparam("now", type_=Float)
# A lease that ends later than one that starts now was given by a clock that has gone back since: it is void too.
_ENDED = assignments.c.expires_at < _NOW
_UNREAL = assignments.c.expires_at > bindparam("until", type_=Float) + CLOCK_SLACK_SECONDS
_VOID = or_(_ENDED, _UNREAL)


def _end_of_leases(condition: ColumnElement[bool], *order: ColumnElement[Any]) -> ScalarSelect[Any]:
    """The first lease from one end of the index by expiry, so that the expired ones need not be scanned."""
    leased = select(assignments.c.id).where(assignments.c.state == "leased", condition)
    return leased.order_by(*order).limit(1).scalar_subquery()


_STATE = (
    select(
        labelers.c.status,
        select(func.count()).where(rankings.c.labeler == _ME).scalar_subquery().label("answered"),
        _end_of_leases(_ENDED, assignments.c.state, assignments.c.expires_at).label("ended"),
        _end_of_leases(_UNREAL, assignments.c.state.desc(), assignments.c.expires_at.desc()).label("unreal"),
        exists().where(campaigns.c.state == "active").label("has_campaigns"),
    )
    .where(labelers.c.name == _ME)
    .with_for_update(of=labelers)
)
"""On PostgreSQL this locks the labeler's row, so that two tabs of one person wait for each other."""
_RENEW = (
    update(assignments)
    .where(assignments.c.id == bindparam("renewed"), assignments.c.labeler == _ME, assignments.c.state == "leased")
    .values(expires_at=bindparam("until"))
)
_SLOT = select(
    assignments.c.id, assignments.c.item_id, assignments.c.purpose, assignments.c.order_shown,
    assignments.c.campaign, items.c.prompt_id, items.c.response_ids,
    select(drafts.c.content).where(drafts.c.assignment_id == assignments.c.id, drafts.c.labeler == _ME)
    .scalar_subquery().label("draft"),
).join(items)  # fmt: skip
_HELD = _SLOT.where(assignments.c.labeler == _ME, assignments.c.state == "leased")
_mine = assignments.alias("mine")
_HAD = exists().where(_mine.c.labeler == _ME, _mine.c.item_id == assignments.c.item_id)
_LEFT = (
    select(_mine.c.item_id)
    .join(rankings, rankings.c.assignment_id == _mine.c.id)
    .where(rankings.c.labeler == _ME, rankings.c.status.in_(("skipped", "late")))
)
_MAY = (assignments.c.purpose == "label", assignments.c.campaign == bindparam("campaign", type_=String), ~_HAD,
        assignments.c.item_id.not_in(_LEFT))  # fmt: skip
_EXPIRED = (
    _SLOT.where(*_MAY, assignments.c.state == "leased", _VOID)
    .order_by(assignments.c.expires_at).limit(1).with_for_update(skip_locked=True, of=assignments)
)  # fmt: skip
_OPEN = (
    _SLOT.where(*_MAY, assignments.c.state == "open")
    .order_by(assignments.c.priority, assignments.c.id).limit(1).with_for_update(skip_locked=True, of=assignments)
)  # fmt: skip
_LEASE = (
    update(assignments)
    .where(
        assignments.c.id == bindparam("taken"),
        or_(assignments.c.state == "open", and_(assignments.c.state == "leased", _VOID)),
    )
    .values(
        state="leased", labeler=_ME, leased_at=_NOW, expires_at=bindparam("until"), order_shown=bindparam("order"),
    )
)  # fmt: skip


_ACTIVE = select(campaigns.c.name, campaigns.c.share).where(campaigns.c.state == "active")
_REPEATED = select(assignments.c.item_id).where(assignments.c.labeler == _ME, assignments.c.purpose == "repeat")
_RECENT = (
    select(assignments.c.item_id, assignments.c.campaign, rankings.c.order_shown)
    .join(assignments, assignments.c.id == rankings.c.assignment_id)
    .where(rankings.c.labeler == _ME, rankings.c.status == "active", rankings.c.purpose == "label")
    .where(or_(assignments.c.campaign == "", assignments.c.campaign.in_(_ACTIVE.with_only_columns(campaigns.c.name))))
    .order_by(rankings.c.submitted_at.desc(), rankings.c.assignment_id)
    .limit(_REPEATABLE)
)


def _held(connection: Connection, labeler: str) -> _Slot | None:
    # Sorted here: with an ORDER BY id, PostgreSQL scans all slots by id.
    return min(connection.execute(_HELD, {"me": labeler}).all(), key=lambda slot: int(slot.id), default=None)


def _take(
    connection: Connection, labeler: str, settings: LabelingSettings, seed: int, now: float, state: _Slot
) -> _Slot | None:
    """Take a gold item, a repeat or a slot; which of them is drawn by labeler and count, so it cannot be predicted."""
    draw = random.Random(f"purpose {seed} {labeler} {state.answered}").random()  # noqa: S311
    expires = now + settings.lease_minutes * 60.0
    going = {row.name: row.share for row in connection.execute(_ACTIVE)} if state.has_campaigns else {}
    in_turn = _by_share(going, random.Random(f"campaign {seed} {labeler} {state.answered}").random())  # noqa: S311
    if draw < settings.gold_share:
        taken = _take_gold(connection, labeler, in_turn, seed, now, expires)
    elif draw < settings.gold_share + settings.repeat_share:
        taken = _take_repeat(connection, labeler, seed, now, expires)
    else:
        taken = None
    if taken is not None:
        return taken
    queries = (_EXPIRED, _OPEN) if (state.ended or state.unreal) is not None else (_OPEN,)
    for campaign in in_turn:
        taken = _take_slot(connection, labeler, campaign, queries, seed, now, expires)
        if taken is not None:
            return taken
    return None


def _by_share(shares: Mapping[str, int], draw: float) -> list[str]:
    """The campaign that ``draw`` (0 to 1) selects, then the others, which are used if it has nothing (more).

    ``shares`` are percent; the rest is the main task's, whose name is empty.
    """
    named = sorted(shares, key=lambda name: (-shares[name], name))
    ends = list(accumulate(shares[name] for name in named))
    drawn = next((name for name, end in zip(named, ends, strict=True) if 100.0 * draw < end), "")
    return [drawn, *(name for name in ("", *named) if name != drawn)]


def _take_slot(
    connection: Connection, labeler: str, campaign: str, queries: Sequence[Select[*tuple[Any, ...]]], seed: int,
    now: float, expires: float,
) -> _Slot | None:  # fmt: skip
    for query in queries:
        for _ in range(_TRIES):
            asked = {"me": labeler, "now": now, "until": expires, "campaign": campaign}
            slot = connection.execute(query, asked).first()
            if slot is None:
                break
            order = as_json(order_for(seed, slot.item_id, labeler, json.loads(slot.response_ids)))
            values = {"taken": slot.id, "me": labeler, "now": now, "until": expires, "order": order}
            if connection.execute(_LEASE, values).rowcount:
                return _held(connection, labeler)
    return None


def _take_gold(
    connection: Connection, labeler: str, in_turn: Sequence[str], seed: int, now: float, expires: float
) -> _Slot | None:
    """A gold item of the first campaign that has one left for the labeler."""
    had = select(assignments.c.item_id).where(assignments.c.labeler == labeler, assignments.c.purpose == "gold")
    query = select(items).where(items.c.kind == "gold", ~items.c.closed, items.c.id.not_in(had))
    left = connection.execute(query.order_by(items.c.id)).all()
    for campaign in in_turn:
        found = [row for row in left if row.campaign == campaign]
        if found:
            item = found[random.Random(f"gold {seed} {labeler} {len(found)}").randrange(len(found))]  # noqa: S311
            order = order_for(seed, item.id, labeler, json.loads(item.response_ids))
            return _own_slot(connection, item.id, "gold", labeler, order, now, expires, campaign)
    return None


def _take_repeat(connection: Connection, labeler: str, seed: int, now: float, expires: float) -> _Slot | None:
    had = set(connection.execute(_REPEATED, {"me": labeler}).scalars())
    recent = connection.execute(_RECENT, {"me": labeler}).all()[REPEAT_GAP:]
    found = next((row for row in recent if row.item_id not in had), None)
    if found is None:
        return None
    order = order_for(seed, found.item_id, labeler, json.loads(found.order_shown), not_like=found.order_shown)
    return _own_slot(connection, found.item_id, "repeat", labeler, order, now, expires, found.campaign)


def _own_slot(
    connection: Connection, item_id: int, purpose: str, labeler: str, order: list[str], now: float, expires: float,
    campaign: str,
) -> _Slot | None:  # fmt: skip
    values = {
        "item_id": item_id, "purpose": purpose, "seat": labeler, "priority": 0.0, "state": "leased",
        "labeler": labeler, "leased_at": now, "expires_at": expires, "order_shown": as_json(order),
        "campaign": campaign,
    }  # fmt: skip
    connection.execute(insert(assignments), values)
    return _held(connection, labeler)
