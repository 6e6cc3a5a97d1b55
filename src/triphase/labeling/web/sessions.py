"""Signing in and out. The cookie carries a signed random token; the store contains only the token's hash."""

import secrets
from dataclasses import dataclass

from itsdangerous import BadSignature, Signer
from sqlalchemy import Connection, delete, func, insert, or_, select, update

from triphase.labeling.work import audit
from triphase.labeling.work.accounts import verify
from triphase.labeling.work.people import AccountError, digest
from triphase.store.locking import Lock, one_at_a_time
from triphase.store.schema import labelers, meta, sessions, sign_ins

SESSION_HOURS = 14.0
WINDOW_SECONDS = 900.0
MOST_FAILURES_OF_NAME = 8
MOST_FAILURES_OF_ADDRESS = 40
_CLOCK_SECONDS = 60.0
"""Maximum difference of the clocks of two servers on one store."""


class TooManyAttempts(AccountError):
    """The rate limit of signing in."""


@dataclass(frozen=True, slots=True)
class Session:
    """Who is signed in, and the token that proves that a form came from our own page."""

    name: str
    role: str
    status: str
    csrf: str
    token_hash: str


def cookie_key(connection: Connection) -> str:
    """The secret that signs cookies; created on first use."""
    one_at_a_time(connection, Lock.COOKIE_KEY)
    found: str | None = connection.execute(select(meta.c.value).where(meta.c.key == "cookie_key")).scalar()
    if found is None:
        found = secrets.token_urlsafe(32)
        connection.execute(insert(meta), {"key": "cookie_key", "value": found})
    return found


def sealed(token: str, key: str) -> str:
    """The cookie of a session token."""
    return Signer(key, salt="triphase session").sign(token).decode()


def unsealed(cookie: str, key: str) -> str | None:
    """The token in a cookie that we signed, else None."""
    try:
        return Signer(key, salt="triphase session").unsign(cookie).decode()
    except (BadSignature, UnicodeDecodeError):
        return None


def attempt(connection: Connection, name: str, address: str, now: float) -> int:
    """Count a sign-in attempt as a failure, before its password is checked; return its number for ``succeeded``.

    Counting and checking are one transaction, so simultaneous attempts see each other. Expired failures, and those from
    after ``now`` (the clock was set back), are deleted, so that they count neither now nor when the clock reaches them
    again.

    Raises:
        TooManyAttempts: too many failures for this name or from this address.
    """
    one_at_a_time(connection, Lock.SIGN_IN)
    name, address = name[:80], address[:80]
    elsewhen = or_(sign_ins.c.at <= now - WINDOW_SECONDS, sign_ins.c.at > now + _CLOCK_SECONDS)
    connection.execute(delete(sign_ins).where(elsewhen))
    for column, value, most in (
        (sign_ins.c.name, name, MOST_FAILURES_OF_NAME),
        (sign_ins.c.address, address, MOST_FAILURES_OF_ADDRESS),
    ):
        if connection.execute(select(func.count()).where(column == value)).scalar_one() >= most:
            raise TooManyAttempts("too many attempts to sign in; wait a quarter of an hour and try again")
    row = insert(sign_ins).values(name=name, address=address, at=now).returning(sign_ins.c.id)
    return int(connection.execute(row).scalar_one())


def succeeded(connection: Connection, number: int) -> None:
    """Undo the failure that ``attempt`` counted: the password was right."""
    connection.execute(delete(sign_ins).where(sign_ins.c.id == number))


def password_hash(connection: Connection, name: str) -> str | None:
    """The hash to compare the password with; None if nobody can sign in by this name."""
    found: str | None = connection.execute(
        select(labelers.c.password_hash).where(labelers.c.name == name, labelers.c.status != "withdrawn")
    ).scalar()
    return found


def fits(password_hash_: str | None, password: str) -> bool:
    """Whether the password is right. Slow on purpose: call it outside a transaction."""
    return verify(password_hash_, password)


def start(connection: Connection, name: str, compared: str, *, now: float, old_token: str | None = None) -> str:
    """Start a session with a new token (an old one is ended, never reused); return the token.

    ``compared`` is the hash that the password was compared with: comparing takes a while, during which the account may
    have got another password, or been withdrawn, and all its sessions been ended.

    Raises:
        AccountError: that has happened.
    """
    mine = (labelers.c.name == name, labelers.c.password_hash == compared, labelers.c.status != "withdrawn")
    if connection.execute(select(labelers.c.name).where(*mine).with_for_update()).first() is None:
        raise AccountError("this account was changed a moment ago; sign in again")
    if old_token is not None:
        end(connection, digest(old_token))
    token = secrets.token_urlsafe(32)
    values = {
        "token_hash": digest(token), "labeler": name, "csrf": secrets.token_urlsafe(24), "created_at": now,
        "expires_at": now + SESSION_HOURS * 3600.0,
    }  # fmt: skip
    connection.execute(insert(sessions), values)
    audit.note(connection, at=now, who=name, action=audit.SIGNED_IN, subject=name)
    return token


def find(connection: Connection, token: str, now: float) -> Session | None:
    """The session of a token, if it has not expired and its person is not withdrawn."""
    hashed = digest(token)
    query = (
        select(labelers.c.name, labelers.c.role, labelers.c.status, sessions.c.csrf)
        .join(labelers, labelers.c.name == sessions.c.labeler)
        .where(sessions.c.token_hash == hashed, sessions.c.expires_at > now, labelers.c.status != "withdrawn")
    )
    row = connection.execute(query).first()
    return None if row is None else Session(row.name, row.role, row.status, row.csrf, hashed)


def end(connection: Connection, token_hash: str) -> None:
    """End one session, permanently: a clock that goes back does not reopen it."""
    connection.execute(update(sessions).where(sessions.c.token_hash == token_hash).values(expires_at=0.0))
