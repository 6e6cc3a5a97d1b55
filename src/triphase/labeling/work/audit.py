"""Who did what: written in the same transaction as the action, and never changed (the database refuses it)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from triphase.store.record_rows import as_json
from triphase.store.schema import audit

SIGNED_IN, CORRECTED = "signed in", "answer corrected"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the audit."""

    id: int
    at: float
    who: str
    action: str
    subject: str
    before: Any
    after: Any


def last_decision(connection: Connection) -> int:
    """The newest line of the audit that is neither a sign-in nor a labeler's correction; 0 without one."""
    query = select(audit.c.id).where(audit.c.action.not_in((SIGNED_IN, CORRECTED))).order_by(audit.c.id.desc()).limit(1)
    return connection.execute(query).scalar() or 0


def note(
    connection: Connection,
    *,
    at: float,
    who: str,
    action: str,
    subject: str,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    """Record an action within its transaction."""
    values = {"at": at, "who": who, "action": action, "subject": subject[:240]}
    values["before"] = None if before is None else as_json(dict(before))
    values["after"] = None if after is None else as_json(dict(after))
    connection.execute(insert(audit), values)


def entries(
    connection: Connection, *, subject: str = "", who: str = "", before_id: int = 0, limit: int = 100
) -> list[Entry]:
    """The newest entries first; restricted to a subject or a person; ``before_id`` continues after a page's last."""
    query = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if subject:
        query = query.where(audit.c.subject == subject)
    if who:
        query = query.where(audit.c.who == who)
    if before_id:
        query = query.where(audit.c.id < before_id)
    return [
        Entry(
            row.id,
            row.at,
            row.who,
            row.action,
            row.subject,
            json.loads(row.before) if row.before else None,
            json.loads(row.after) if row.after else None,
        )
        for row in connection.execute(query)
    ]
