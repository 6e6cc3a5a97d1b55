"""Leads and labelers: accounts and passwords."""

from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, insert, select, update

from triphase.labeling.work import audit, invitations
from triphase.labeling.work.people import AccountError, check_name, check_role
from triphase.store.locking import Lock, one_at_a_time
from triphase.store.schema import labelers, sessions

SHORTEST_PASSWORD = 10
LONGEST_PASSWORD = 200

_hasher = PasswordHasher()
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$PLlxmRzKeDe6w9+l0q34hQ$8vMHIRV0h4dKBCnp1bL7gHuhSPl+q09hHlWDu9mftjE"
"""Used if there is no such account, so that the time taken does not reveal which names exist."""


@dataclass(frozen=True, slots=True)
class Account:
    """Someone who ranks or leads."""

    name: str
    role: str
    status: str
    created_at: float | None
    can_sign_in: bool


def add_account(connection: Connection, name: str, role: str, password_hash: str, *, now: float, by: str) -> None:
    """Create an account, or give a password to someone known only from imported rankings."""
    check_name(name)
    check_role(role)
    if role == "lead":
        one_at_a_time(connection, Lock.LEADS)  # a server that starts concurrently would print a link for the first one
    before = connection.execute(select(labelers).where(labelers.c.name == name).with_for_update()).first()
    if before is not None and before.password_hash is not None:
        raise AccountError(f"the name {name!r} is taken; choose another one")
    values = {"role": role, "status": "active", "password_hash": password_hash, "created_at": now}
    if before is None:
        connection.execute(insert(labelers), {"name": name, **values})
    else:
        connection.execute(update(labelers).where(labelers.c.name == name).values(values))
    if role == "lead":
        invitations.void(connection, invitations.FIRST_LEAD, now=now, by=by)
    audit.note(connection, at=now, who=by, action="account added", subject=name, after={"role": role})


def set_password(connection: Connection, name: str, password_hash: str, *, now: float, by: str) -> None:
    """Give an account a new password, end its sessions, and void its links for a new password."""
    changed = update(labelers).where(labelers.c.name == name).values(password_hash=password_hash)
    if not connection.execute(changed).rowcount:
        raise AccountError(f"there is no account {name!r}; see: triphase label users list")
    end_sessions(connection, name)
    invitations.void_for(connection, name, now=now, by=by)
    audit.note(connection, at=now, who=by, action="password set", subject=name)


def end_sessions(connection: Connection, name: str) -> None:
    """End every session of someone, permanently: a clock that goes back does not reopen them."""
    open_ones = (sessions.c.labeler == name, sessions.c.expires_at > 0.0)
    connection.execute(update(sessions).where(*open_ones).values(expires_at=0.0))


def verify(password_hash: str | None, password: str) -> bool:
    """Whether a password matches; takes equally long if there is no account."""
    try:
        return _hasher.verify(password_hash or _NOBODY, password[:LONGEST_PASSWORD]) and password_hash is not None
    except (VerificationError, InvalidHashError):
        return False


def account(connection: Connection, name: str) -> Account | None:
    """One account, or None."""
    row = connection.execute(select(labelers).where(labelers.c.name == name)).first()
    return None if row is None else Account(row.name, row.role, row.status, row.created_at, bool(row.password_hash))


def accounts(connection: Connection) -> list[Account]:
    """All accounts by name."""
    query = select(labelers).order_by(labelers.c.name)
    return [
        Account(row.name, row.role, row.status, row.created_at, bool(row.password_hash))
        for row in connection.execute(query)
    ]


def accept(connection: Connection, token: str, name: str, password_hash: str, *, now: float) -> str:
    """Use an invitation: create its account (or set its password) and return the name."""
    one_at_a_time(connection, Lock.LEADS)
    role, wanted = invitations.look_up(connection, token, now)
    name = wanted or check_name(name)
    invitations.use(connection, token, name, now=now)
    there = account(connection, name)
    if wanted is not None and there is not None and there.can_sign_in:
        set_password(connection, name, password_hash, now=now, by=name)
    else:
        add_account(connection, name, role, password_hash, now=now, by=name)
    return name


def first_lead(connection: Connection, *, now: float) -> str | None:
    """The token of an invitation for the first lead, which voids the previous one; None if there is a lead."""
    one_at_a_time(connection, Lock.LEADS)  # servers that start together leave one valid token
    if any(one.role == "lead" and one.can_sign_in for one in accounts(connection)):
        return None
    return invitations.invite(connection, "lead", now=now, by=invitations.OPERATOR)


def hashed(password: str) -> str:
    """The hash of a password that is long enough. Slow on purpose: call it outside a transaction."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise AccountError(
            f"the password has {len(password)} characters; use {SHORTEST_PASSWORD} to {LONGEST_PASSWORD}"
        )
    return _hasher.hash(password)
