"""Invitations: links that create one account, once, or set a new password for one. The store has only their hash.

An invitation ends by being used, after seven days, by being revoked, by a newer link for the first lead, by a lead's
existence (for links that create the first one), by another new password (for links that set one), by the withdrawal of
its recipient, and by the pause or withdrawal of its creator. A voided invitation has ``expires_at`` 0, so no clock that
goes back reopens it.
"""

import secrets
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, insert, or_, select, update

from triphase.labeling.work import audit
from triphase.labeling.work.people import AccountError, check_name, check_role, digest
from triphase.store.locking import Lock, one_at_a_time
from triphase.store.schema import invitations, labelers

INVITATION_DAYS = 7.0
OPERATOR = "command line"
"""The name of the command line's user in the audit, and in invitations."""
FIRST_LEAD: ColumnElement[bool] = and_(
    invitations.c.role == "lead", invitations.c.name.is_(None), invitations.c.created_by == OPERATOR
)
"""Links that the server prints while there is no lead."""
_ID_LENGTH = 16
_VOID = 0.0


@dataclass(frozen=True, slots=True)
class Invitation:
    """An open invitation. ``id`` is a part of its hash: it identifies the invitation and opens nothing."""

    id: str
    role: str
    name: str | None
    created_by: str
    created_at: float
    expires_at: float


def invite(connection: Connection, role: str, *, now: float, by: str, name: str | None = None) -> str:
    """Create an invitation and return its token, which is not stored.

    With the ``name`` of an account it is a link for a new password. A link for the first lead voids those before it.

    Raises:
        AccountError: ``by`` is not a lead (any more), or the name is invalid.
    """
    check_role(role)
    if name is not None:
        check_name(name)
    one_at_a_time(connection, Lock.LEADS)  # whoever invites may be withdrawn at this moment
    _require_lead(connection, by)
    if by == OPERATOR and role == "lead" and name is None:
        void(connection, FIRST_LEAD, now=now, by=by)
    token = secrets.token_urlsafe(24)
    values = {
        "token_hash": digest(token), "role": role, "name": name, "created_by": by, "created_at": now,
        "expires_at": now + INVITATION_DAYS * 86400.0,
    }  # fmt: skip
    connection.execute(insert(invitations), values)
    audit.note(
        connection, at=now, who=by, action="invited", subject=name or "anyone with the link", after={"role": role}
    )
    return token


def _require_lead(connection: Connection, by: str) -> None:
    mine = (labelers.c.name == by, labelers.c.role == "lead", labelers.c.status == "active")
    if by != OPERATOR and connection.execute(select(labelers.c.name).where(*mine)).first() is None:
        raise AccountError("only an active lead invites people; your account has changed, so sign in again")


def look_up(connection: Connection, token: str, now: float) -> tuple[str, str | None]:
    """Role and name of an open invitation; an error if it is unknown, used, void or too old."""
    row = connection.execute(select(invitations).where(invitations.c.token_hash == digest(token))).first()
    if row is None:
        raise AccountError("this invitation does not exist; ask the lead for a new link")
    if row.used_at is not None:
        raise AccountError("this invitation was already used; sign in, or ask the lead for a new link")
    if row.expires_at == _VOID:
        raise AccountError("this invitation is no longer valid; ask the lead for a new link")
    if row.expires_at < now:
        raise AccountError("this invitation has expired; ask the lead for a new link")
    return row.role, row.name


def use(connection: Connection, token: str, name: str, *, now: float) -> None:
    """Use an invitation up.

    Raises:
        AccountError: someone used or voided it a moment before.
    """
    open_one = (
        invitations.c.token_hash == digest(token), invitations.c.used_at.is_(None), invitations.c.expires_at > _VOID,
    )  # fmt: skip
    if not connection.execute(update(invitations).where(*open_one).values(used_at=now, used_by=name)).rowcount:
        raise AccountError("this invitation was already used; sign in, or ask the lead for a new link")


def open_ones(connection: Connection, now: float) -> list[Invitation]:
    """All invitations that can still be used, oldest first."""
    query = (
        select(invitations)
        .where(invitations.c.used_at.is_(None), invitations.c.expires_at > now)
        .order_by(invitations.c.created_at, invitations.c.token_hash)
    )
    return [
        Invitation(row.token_hash[:_ID_LENGTH], row.role, row.name, row.created_by, row.created_at, row.expires_at)
        for row in connection.execute(query)
    ]


def revoke(connection: Connection, invitation_id: str, *, now: float, by: str) -> None:
    """Void one open invitation.

    Raises:
        AccountError: there is no such open invitation.
    """
    known = {one.id for one in open_ones(connection, now)}
    if invitation_id not in known:
        raise AccountError("this invitation is no longer open; reload the page")
    void(connection, invitations.c.token_hash.startswith(invitation_id, autoescape=True), now=now, by=by)


def void_for(connection: Connection, name: str, *, now: float, by: str) -> None:
    """Void the links that set a new password for someone."""
    void(connection, invitations.c.name == name, now=now, by=by)


def void_by(connection: Connection, name: str, *, now: float, by: str) -> None:
    """Void the links that someone made: with one for a lead they would come back under another name."""
    void(connection, invitations.c.created_by == name, now=now, by=by)


def void_of(connection: Connection, name: str, *, now: float, by: str) -> None:
    """Void the links for someone, and those that they made."""
    void(connection, or_(invitations.c.name == name, invitations.c.created_by == name), now=now, by=by)


def void(connection: Connection, which: ColumnElement[bool], *, now: float, by: str) -> None:
    """Void the open invitations that meet a condition, and note it."""
    still_open = (invitations.c.used_at.is_(None), invitations.c.expires_at > _VOID)
    count = connection.execute(update(invitations).where(which, *still_open).values(expires_at=_VOID)).rowcount
    if count:
        audit.note(connection, at=now, who=by, action="invitations voided", subject="links", after={"links": count})
