"""What only one transaction may do at a time."""

from enum import IntEnum

from sqlalchemy import Connection, text


class Lock(IntEnum):
    """Keys of advisory locks in PostgreSQL."""

    UPGRADE = 7421993
    SIGN_IN = 7421994
    LEADS = 7421995
    DECISIONS = 7421996
    ITEMS = 7421997
    COOKIE_KEY = 7421998


def one_at_a_time(connection: Connection, lock: Lock) -> None:
    """Block other transactions with the same ``lock`` until this one has ended.

    SQLite has one writer at a time in any case. PostgreSQL shows a transaction nothing of concurrent ones, so code that
    reads rows before it adds or changes one takes a lock first.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": int(lock)})
