"""Leads and labelers: accounts, passwords, and the invitations that make them."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Literal

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, insert, select, update

from triphase.errors import TriphaseError
from triphase.labelling import audit
from triphase.store.schema import invitations, labelers, sessions

Role = Literal["lead", "labeler"]
ROLES: tuple[Role, ...] = ("lead", "labeler")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
SHORTEST_PASSWORD = 10
LONGEST_PASSWORD = 200
INVITATION_DAYS = 7.0

_hasher = PasswordHasher()
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$PLlxmRzKeDe6w9+l0q34hQ$8vMHIRV0h4dKBCnp1bL7gHuhSPl+q09hHlWDu9mftjE"
"""Compared where there is no such account, so that the time taken does not tell which names exist."""


class AccountError(TriphaseError):
    """A name, password or invitation that cannot be used; shown to the person as it is."""


@dataclass(frozen=True, slots=True)
class Account:
    """Someone who ranks or leads."""

    name: str
    role: str
    status: str
    created_at: float | None
    can_sign_in: bool


def digest(token: str) -> str:
    """What the store keeps of a secret link or cookie."""
    return hashlib.sha256(token.encode()).hexdigest()


def check_name(name: str) -> str:
    """The name if it may be one, else an error that says what a name is."""
    if not NAME.fullmatch(name):
        raise AccountError(
            f"{name!r} cannot be a name: use 1 to 40 of a–z, 0–9, dot, dash and underscore, beginning with a letter "
            "or digit"
        )
    return name


def add_account(connection: Connection, name: str, role: str, password_hash: str, *, now: float, by: str) -> None:
    """Make an account, or give a password to someone known only from imported rankings."""
    check_name(name)
    if role not in ROLES:
        raise AccountError(f"{role!r} is not a role; it is lead or labeler")
    before = connection.execute(select(labelers).where(labelers.c.name == name).with_for_update()).first()
    if before is not None and before.password_hash is not None:
        raise AccountError(f"the name {name!r} is taken; choose another one")
    values = {"role": role, "status": "active", "password_hash": password_hash, "created_at": now}
    if before is None:
        connection.execute(insert(labelers), {"name": name, **values})
    else:
        connection.execute(update(labelers).where(labelers.c.name == name).values(values))
    audit.note(connection, at=now, who=by, action="account added", subject=name, after={"role": role})


def set_password(connection: Connection, name: str, password_hash: str, *, now: float, by: str) -> None:
    """Give an account a new password, and end its sessions."""
    changed = update(labelers).where(labelers.c.name == name).values(password_hash=password_hash)
    if not connection.execute(changed).rowcount:
        raise AccountError(f"there is no account {name!r}; see: triphase label users list")
    open_ones = (sessions.c.labeler == name, sessions.c.expires_at > now)
    connection.execute(update(sessions).where(*open_ones).values(expires_at=0.0))
    audit.note(connection, at=now, who=by, action="password set", subject=name)


def verify(password_hash: str | None, password: str) -> bool:
    """Whether a password fits; takes as long where there is no account."""
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


def invite(connection: Connection, role: str, *, now: float, by: str, name: str | None = None) -> str:
    """Make an invitation and return its token, which is kept nowhere.

    With the ``name`` of an account it is a link for a new password.
    """
    if role not in ROLES:
        raise AccountError(f"{role!r} is not a role; it is lead or labeler")
    if name is not None:
        check_name(name)
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


def invitation_name(connection: Connection, token: str, now: float) -> tuple[str, str | None]:
    """Role and name of an open invitation; an error where it is unknown, used or too old."""
    row = connection.execute(select(invitations).where(invitations.c.token_hash == digest(token))).first()
    if row is None:
        raise AccountError("this invitation is not known; ask the lead for a new link")
    if row.used_at is not None:
        raise AccountError("this invitation was already used; sign in, or ask the lead for a new link")
    if row.expires_at < now:
        raise AccountError("this invitation is too old; ask the lead for a new link")
    return row.role, row.name


def accept(connection: Connection, token: str, name: str, password_hash: str, *, now: float) -> str:
    """Use an invitation: make its account (or set its password) and return the name."""
    role, wanted = invitation_name(connection, token, now)
    name = wanted or check_name(name)
    used = (
        update(invitations)
        .where(invitations.c.token_hash == digest(token), invitations.c.used_at.is_(None))
        .values(used_at=now, used_by=name)
    )
    if not connection.execute(used).rowcount:
        raise AccountError("this invitation was already used; sign in, or ask the lead for a new link")
    there = account(connection, name)
    if wanted is not None and there is not None and there.can_sign_in:
        set_password(connection, name, password_hash, now=now, by=name)
    else:
        add_account(connection, name, role, password_hash, now=now, by=name)
    return name


def hashed(password: str) -> str:
    """The hash of a password that is long enough. Slow on purpose: call it outside a transaction."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise AccountError(
            f"the password has {len(password)} characters; use {SHORTEST_PASSWORD} to {LONGEST_PASSWORD}"
        )
    return _hasher.hash(password)
