"""Migrates a store to the schema of this program when it is opened: forward only, an SQLite file is copied before."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text

from triphase.errors import StoreError
from triphase.store.locking import Lock, one_at_a_time
from triphase.store.schema import REVISION

_MIGRATIONS = Path(__file__).with_name("migrations")


def upgrade(engine: Engine, name: str) -> None:
    """Run the missing migrations, all in one transaction. ``name`` is the store's name in messages."""
    with engine.connect() as connection:
        found = revision_of(connection)
    if found == REVISION:
        return
    known = [step.revision for step in ScriptDirectory(str(_MIGRATIONS)).walk_revisions()]
    if found is not None and found not in known:
        raise StoreError(
            f"{name} has schema {found}, but this Triphase supports up to {REVISION}: it was "
            f"written by a newer version. "
            "Upgrade Triphase, or open the copy that was kept next to the file before the upgrade"
        )
    with engine.connect().execution_options(writes=True) as connection, _without_foreign_keys(connection, name):
        one_at_a_time(connection, Lock.UPGRADE)
        if (found := revision_of(connection)) != REVISION:  # another program may have migrated it by now
            if found is not None and engine.dialect.name == "sqlite" and engine.url.database:
                _copy(Path(engine.url.database), found)
            _run(connection)


@contextmanager
def _without_foreign_keys(connection: Connection, name: str) -> Iterator[None]:
    """A transaction in which SQLite lets a migration rebuild a table that others refer to; they are checked at its
    end."""
    plain = connection.connection.dbapi_connection if connection.dialect.name == "sqlite" else None
    if plain is not None:
        plain.cursor().execute("PRAGMA foreign_keys=OFF")  # before the transaction: within one it has no effect
    try:
        with connection.begin():
            yield
            broken = plain.cursor().execute("PRAGMA foreign_key_check").fetchone() if plain is not None else None
            if broken is not None:
                raise StoreError(
                    f"{name} is damaged: a row of {broken[0]} refers to something that is not in {broken[2]}; restore "
                    "the file from a copy"
                )
    finally:
        if plain is not None:
            plain.cursor().execute("PRAGMA foreign_keys=ON")


def revision_of(connection: Connection) -> str | None:
    """The revision recorded in a store; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _run(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, REVISION)


def _copy(database: Path, revision: str) -> None:
    """Copy an SQLite file next to itself with SQLite's own backup, which is consistent while others write."""
    target = database.with_name(f"{database.name}.before-{REVISION}-was-{revision}")
    with sqlite3.connect(database) as source, sqlite3.connect(target) as copy:
        source.backup(copy)
    copy.close()
    source.close()
