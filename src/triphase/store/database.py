"""Opening the store, and its transactions: SQLite in WAL mode by default, PostgreSQL by URL."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, OperationalError

from triphase.errors import StoreError
from triphase.store.labels import Labels
from triphase.store.schema import REVISION
from triphase.store.upgrade import upgrade

FILE_NAME = "labels.sqlite"
"""The store of a run directory."""
BUSY_SECONDS = 30.0
"""How long a writer waits for another one on SQLite."""
_LOOK_SECONDS = 1.0


class NewerSchema(StoreError):
    """A newer program has migrated the store while it was open here."""


class Store(Labels):
    """An open store. Its label functions (``add_prompts``, ``rankings`` …) come from ``store.labels``."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self._look_again = 0.0
        self._autocommitting = engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in a write transaction: all of the block is committed, or nothing."""
        with self._translated(), self.engine.connect() as plain:
            connection = plain.execution_options(writes=True)
            with connection.begin():
                self._require_same_schema(connection)
                yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection with a consistent snapshot of the store."""
        with self._translated(), self.engine.connect() as connection, connection.begin():
            self._require_same_schema(connection)
            yield connection

    @contextmanager
    def glance(self) -> Iterator[Connection]:
        """A connection for one reading statement: without a transaction, if that saves round trips."""
        if not self.is_postgresql:
            with self.reading() as connection:
                yield connection
            return
        with self._translated(), self._autocommitting.connect() as connection:
            yield connection

    def _require_same_schema(self, connection: Connection) -> None:
        """Refuse a store that a newer program has migrated meanwhile; checks once a second."""
        if time.monotonic() < self._look_again:
            return
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        if found != REVISION:
            raise NewerSchema(
                f"{self.name} was brought to schema {found} by a newer Triphase while this program, which knows "
                f"{REVISION}, had it open; it no longer reads or writes anything: stop it, and "
                f"start it again with that version"
            )
        self._look_again = time.monotonic() + _LOOK_SECONDS

    def take_stock(self) -> None:
        """Make PostgreSQL update its statistics now, so that the first plans are good ones; SQLite needs nothing."""
        if self.is_postgresql:
            with self._translated(), self._autocommitting.connect() as connection:
                connection.execute(text("ANALYZE"))

    @property
    def is_postgresql(self) -> bool:
        """Whether rows must be locked one by one (SQLite locks the file for each writer)."""
        return self.engine.dialect.name == "postgresql"

    def close(self) -> None:
        """Close the connections; an SQLite file is then complete without its -wal."""
        self.engine.dispose()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            # DatabaseError itself, and no subclass: SQLite raises it for a damaged file.
            if isinstance(error, OperationalError) or type(error) is DatabaseError or error.connection_invalidated:
                raise StoreError(_away(self.name, error)) from error
            raise


def open_store(url_or_path: str | Path) -> Store:
    """Open a store, create it if it is missing, and migrate it to this program's schema.

    Takes a database URL, an SQLite file, or a run directory (then ``labels.sqlite`` in it).
    """
    url = _url(url_or_path)
    name = url.render_as_string(hide_password=True) if url.get_backend_name() != "sqlite" else str(url.database)
    if url.get_backend_name() == "sqlite":
        require_one_name(Path(str(url.database)))
    try:
        engine = _engine(url)
        with _disposed_on_failure(engine):
            upgrade(engine, name)
    except (DBAPIError, sqlite3.Error) as error:
        raise StoreError(_away(name, error)) from error
    except ImportError as error:
        raise StoreError(
            f"{name} needs the package {error.name}; install it with: pip install 'triphase[postgres]'"
        ) from error
    return Store(engine, name)


@contextmanager
def _disposed_on_failure(engine: Engine) -> Iterator[None]:
    try:
        yield
    except BaseException:
        engine.dispose()
        raise


def require_one_name(path: Path) -> None:
    """SQLite keeps its journal next to a file, by its name: under two names (hard links) it would be damaged.

    Raises:
        StoreError: it has a second name.
    """
    if os.path.isfile(path) and os.stat(path).st_nlink > 1:
        raise StoreError(
            f"{path}: is the same file as another one (a hard link), so writing here would "
            f"change that one too; make it a separate file: cp {path.name} new && mv new {path.name}"
        )


def _url(url_or_path: str | Path) -> URL:
    given = str(url_or_path)
    if "://" not in given:
        path = Path(given)
        if os.path.isdir(path):  # False for a name that is too long
            path = path / FILE_NAME
        if path.name == FILE_NAME and path.is_symlink():
            raise StoreError(
                f"{path}: is a symbolic link, which is never written through; replace it by its "
                f"target, or give that file itself"
            )
        if not os.path.isdir(path.parent):
            raise StoreError(f"{path}: the directory {path.parent} does not exist; create it, or check the path")
        return URL.create("sqlite", database=str(path.absolute()))
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):  # the cause quotes the text, and with it a password
        raise StoreError(f"{given!r} is not a database URL; write postgresql+psycopg://user@host/name") from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise StoreError(f"{url.drivername!r} is not supported; use an SQLite file or postgresql+psycopg://…")
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    return url


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        return create_engine(
            url, pool_size=8, max_overflow=8, isolation_level="READ COMMITTED",
            # The same few statements over and over: planning each of them again would take longer than running it.
            connect_args={"connect_timeout": 5, "options": "-c plan_cache_mode=force_generic_plan"},
        )  # fmt: skip
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the "begin" listener emits BEGIN, so that readers and writers differ
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={int(BUSY_SECONDS * 1e3)}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _away(name: str, error: Exception) -> str:
    cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    if "file is not a database" in cause:
        return f"{name} is not an SQLite file; give a store created by Triphase, or a new file"
    if "malformed" in cause:
        return (
            f"{name} is damaged ({cause}); restore it from a copy, or save what can be read with: "
            f"sqlite3 {name} .recover | sqlite3 new.sqlite"
        )
    if "is full" in cause or "No space left" in cause:
        return f"{name}: the disk is full ({cause}); free some space, then run the same command again"
    if "disk I/O error" in cause:
        return (
            f"{name}: the disk refused to read or write ({cause}); check its space, its health "
            f"and the file size limit (ulimit -f), then run the same command again"
        )
    if "locked" in cause:
        return f"{name} is locked by another program ({cause}); close that program and try again"
    if "readonly" in cause or "unable to open" in cause:
        return f"{name} cannot be opened for writing ({cause}); check the path and its permissions"
    return f"{name} cannot be reached ({cause}); check that the database runs, then try again"
