"""Opening a store: new, again, in a run directory, of a newer schema, damaged, in the wrong place, with a backup."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, insert, inspect, text
from sqlalchemy.exc import DBAPIError

from triphase.errors import StoreError
from triphase.records.types import Message, Prompt, Ranking, Response
from triphase.store import Store, open_store, upgrade
from triphase.store.answers import StoredAnswer
from triphase.store.schema import REVISION, audit, metadata

PROMPT = Prompt("p", (Message("user", "hello"),))


def before_campaigns(connection: Connection) -> None:
    """Bring an empty or filled store back to the schema 0003; its items must be none, or gone before."""
    connection.execute(text("DROP TABLE campaigns"))
    connection.execute(text("DROP INDEX assignments_next"))
    for table in ("guidelines", "assignments", "rankings", "adjudications"):
        connection.execute(text(f"ALTER TABLE {table} DROP COLUMN campaign"))
    connection.execute(text("CREATE INDEX assignments_next ON assignments (state, purpose, priority, id)"))
    if connection.dialect.name == "postgresql":
        connection.execute(text("ALTER TABLE items DROP CONSTRAINT items_prompt"))
        connection.execute(text("ALTER TABLE items DROP COLUMN campaign"))
        connection.execute(text("ALTER TABLE items ADD CONSTRAINT items_prompt UNIQUE (prompt_id, kind)"))
        return
    connection.execute(text("DROP TABLE items"))
    connection.execute(
        text(
            "CREATE TABLE items (id INTEGER NOT NULL, prompt_id VARCHAR(200) NOT NULL, kind VARCHAR(20) NOT NULL, "
            "response_ids TEXT NOT NULL, overlap INTEGER NOT NULL, chosen_by VARCHAR(20) NOT NULL, "
            "priority FLOAT NOT NULL, gold_places TEXT, closed BOOLEAN DEFAULT false NOT NULL, "
            "CONSTRAINT items_kind CHECK (kind IN ('label', 'gold')), FOREIGN KEY(prompt_id) REFERENCES prompts (id), "
            "PRIMARY KEY (id), CONSTRAINT items_prompt UNIQUE (prompt_id, kind))"
        )
    )


def test_the_steps_lead_to_the_tables(store: Store) -> None:
    with store.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert set(inspect(connection).get_table_names()) == {*metadata.tables, "alembic_version"}
        assert upgrade.revision_of(connection) == REVISION


def test_this_program_knows_its_newest_step() -> None:
    steps = ScriptDirectory(str(Path(upgrade.__file__).with_name("migrations")))
    assert steps.get_current_head() == REVISION
    assert len(steps.get_heads()) == 1


def test_a_run_directory_holds_its_store(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.add_prompts([PROMPT])
    with open_store(tmp_path / "labels.sqlite") as store:
        assert store.prompts() == [PROMPT]
        with store.reading() as connection:
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
            assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
            assert connection.execute(text("PRAGMA synchronous")).scalar() == 2


def test_a_newer_store_is_refused_and_untouched(tmp_path: Path) -> None:
    with open_store(tmp_path) as store, store.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(
        StoreError, match=r"labels.sqlite has schema 9999, but this Triphase supports up to \d+.*Upgrade"
    ):
        open_store(tmp_path)


def test_a_copy_is_kept_before_an_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(tmp_path) as store:
        store.add_prompts([PROMPT])
    monkeypatch.setattr(upgrade, "REVISION", "9998")
    monkeypatch.setattr(upgrade, "_run", lambda connection: connection.execute(text("UPDATE prompts SET kind = 'new'")))
    with open_store(tmp_path) as store:
        assert store.prompts()[0].kind == "new"
    copy = tmp_path / f"labels.sqlite.before-9998-was-{REVISION}"
    monkeypatch.undo()
    with open_store(copy) as store:
        assert store.prompts() == [PROMPT]


def test_a_store_of_the_first_schema_takes_long_seeds(store: Store) -> None:
    """What samples gives each response a seed of 63 bits, which an integer column of PostgreSQL does not hold."""
    store.add_prompts([PROMPT])
    with store.transaction() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("ALTER TABLE responses ALTER COLUMN seed TYPE INTEGER"))
        before_campaigns(connection)
        for name in ("ratings", "rationale", "rewrites"):
            connection.execute(text(f"ALTER TABLE rankings DROP COLUMN {name}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    upgrade.upgrade(store.engine, "store")
    response = Response("r", "p", "hi", "policy", True, 2**63 - 1)
    store.add_responses([response])
    assert store.responses() == [response] and store.prompts() == [PROMPT]
    with store.reading() as connection:
        assert upgrade.revision_of(connection) == REVISION


def test_answers_of_an_older_store_have_no_remarks_and_new_ones_keep_theirs(store: Store) -> None:
    store.add_prompts([PROMPT])
    store.add_responses([Response(f"r{n}", "p", f"hi {n}", "policy") for n in range(2)])
    places = {"r0": 1, "r1": 2}
    old = StoredAnswer(Ranking("old", "p", "ann", places, ("r1", "r0"), 1.0), quality={"r0": 3})
    store.add_answers([old])
    with store.transaction() as connection:
        before_campaigns(connection)
        for name in ("ratings", "rationale", "rewrites"):
            connection.execute(text(f"ALTER TABLE rankings DROP COLUMN {name}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0002'"))
    upgrade.upgrade(store.engine, "store")
    new = StoredAnswer(
        Ranking("new", "p", "bob", places, ("r0", "r1"), 2.0),
        ratings={"honest": {"r0": 7}}, rationale="because", rewrites={"r1": "Hello."},
    )  # fmt: skip
    store.add_answers([new])
    assert store.answers() == [old, new]


def test_a_step_that_fails_leaves_the_store_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(tmp_path) as store:
        store.add_prompts([PROMPT])

    def fail(connection: object) -> None:
        connection.execute(text("DELETE FROM prompts"))
        raise RuntimeError("step failed")

    monkeypatch.setattr(upgrade, "REVISION", "9998")
    monkeypatch.setattr(upgrade, "_run", fail)
    with pytest.raises(RuntimeError, match="step failed"):
        open_store(tmp_path)
    monkeypatch.undo()
    with open_store(tmp_path) as store:
        assert store.prompts() == [PROMPT]


def test_wrong_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"the directory .*nowhere does not exist"):
        open_store(tmp_path / "nowhere" / "labels.sqlite")
    (tmp_path / "note.txt").write_text("no database " * 100)
    with pytest.raises(StoreError, match=r"note.txt is not an SQLite file"):
        open_store(tmp_path / "note.txt")
    with pytest.raises(StoreError, match="'mysql' is not supported"):
        open_store("mysql://host/name")
    with pytest.raises(StoreError, match="is not a database URL"):
        open_store("post gres://:::")


@pytest.mark.postgres
def test_a_server_that_is_away_is_named() -> None:
    with pytest.raises(StoreError, match=r"cannot be reached.*check that the database runs"):
        open_store("postgresql://someone:secret@127.0.0.1:1/none")


def test_the_audit_only_grows(store: Store) -> None:
    with store.transaction() as connection:
        connection.execute(insert(audit), {"at": 1.0, "who": "ann", "action": "did", "subject": "x"})
    for change in ("UPDATE audit SET who = 'bob'", "DELETE FROM audit"):
        with pytest.raises(DBAPIError, match="the audit is append-only"), store.transaction() as connection:
            connection.execute(text(change))


def test_a_transaction_is_whole_or_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.transaction() as connection:
        connection.execute(insert(audit), {"at": 1.0, "who": "ann", "action": "did", "subject": "x"})
        raise RuntimeError
    with store.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM audit")).scalar() == 0


def test_two_open_a_new_store_at_once(tmp_path: Path) -> None:
    problems: list[Exception] = []

    def work(number: int) -> None:
        try:
            with open_store(tmp_path) as store:
                store.add_prompts([Prompt(f"p{number}", PROMPT.messages)])
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    with open_store(tmp_path) as store:
        assert len(store.prompts()) == 4


def test_a_closed_store_is_one_file(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.add_prompts([PROMPT])
    assert [path.name for path in tmp_path.iterdir()] == ["labels.sqlite"]
    connection = sqlite3.connect(tmp_path / "labels.sqlite")
    assert connection.execute("SELECT count(*) FROM prompts").fetchone() == (1,)
    connection.close()


def test_store_and_labeling_need_no_torch() -> None:
    labeling = "triphase.labeling.web.application, triphase.labeling.simulation.simulated"
    modules = f"triphase.store, {labeling}, triphase.cli.label"
    code = f"import {modules}, sys; print([m for m in ('torch', 'pandas', 'transformers') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_store_that_a_newer_program_upgraded_while_it_was_open_is_left_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_prompts([PROMPT])
    with store.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    monkeypatch.setattr(store, "_look_again", 0.0)  # a second later
    other = Prompt("q", PROMPT.messages)
    for attempt in (store.prompts, lambda: store.add_prompts([other])):
        with pytest.raises(
            StoreError, match=r"brought to schema 9999 by a newer Triphase while this program.*start it again"
        ):
            attempt()
    with store.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM prompts")).scalar() == 1


def test_a_store_that_cannot_be_opened_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "labels.sqlite"
    open_store(path).close()
    made: list[sqlite3.Connection] = []
    connect = sqlite3.dbapi2.connect
    monkeypatch.setattr(
        "sqlite3.dbapi2.connect", lambda *given, **named: made.append(connect(*given, **named)) or made[-1]
    )
    monkeypatch.setattr("triphase.store.database.upgrade", refuse)
    with pytest.raises(StoreError):
        open_store(path)
    (connection,) = made
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def refuse(engine: Engine, name: str) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    raise StoreError(name)
