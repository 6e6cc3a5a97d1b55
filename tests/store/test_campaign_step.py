"""A store of the schema before campaigns: it opens, loses nothing, and all its content belongs to the main task."""

from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, inspect, select, text
from sqlalchemy.exc import IntegrityError

from triphase.errors import StoreError
from triphase.store import open_store, upgrade
from triphase.store.schema import REVISION, assignments, items, metadata

ROWS = {
    "prompts": [
        {"id": f"p{n}", "position": n, "messages": '[["user","hi"]]', "kind": "", "split": "train"} for n in (0, 1)
    ],
    "responses": [
        {"id": f"p{n}-{k}", "prompt_id": f"p{n}", "position": k, "text": f"text {k}", "model": "m", "finished": True}
        for n in (0, 1)
        for k in (0, 1)
    ],
    "labelers": [{"name": "ann", "role": "labeler", "status": "active"}],
    "guidelines": [{"version": 1, "text": "Be kind.", "created_by": "lea", "created_at": 1.0}],
    "items": [
        {
            "id": n + 7, "prompt_id": f"p{n}", "kind": "label", "response_ids": f'["p{n}-0","p{n}-1"]', "overlap": 1,
            "chosen_by": "random", "priority": float(n), "closed": False,
        }
        for n in (0, 1)
    ],
    "assignments": [
        {"id": 3, "item_id": 7, "purpose": "label", "seat": "0", "priority": 0.0, "state": "done", "labeler": "ann",
         "order_shown": '["p0-1","p0-0"]'},
        {"id": 4, "item_id": 8, "purpose": "label", "seat": "0", "priority": 1.0, "state": "open", "labeler": None,
         "order_shown": None},
    ],
    "rankings": [
        {"id": "r", "prompt_id": "p0", "assignment_id": 3, "purpose": "label", "status": "active", "labeler": "ann",
         "places": '{"p0-0":1,"p0-1":2}', "order_shown": '["p0-1","p0-0"]', "submitted_at": 2.0, "note": "",
         "guideline_version": 1},
    ],
}  # fmt: skip


def old_store(engine: Engine) -> None:
    """Run the steps up to the one before campaigns, and fill the tables as that version did."""
    config = Config()
    config.set_main_option("script_location", str(Path(upgrade.__file__).with_name("migrations")))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        for table, rows in ROWS.items():
            for row in rows:
                names = ", ".join(row)
                values = ", ".join(f":{name}" for name in row)
                connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)  # noqa: S608


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The place of a store of the schema 0003."""
    place = (
        tmp_path / "labels.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres").new_database()
    )
    engine = create_engine(f"sqlite:///{place}" if request.param == "sqlite" else place)
    old_store(engine)
    engine.dispose()
    return place


def test_nothing_is_lost_and_all_is_the_main_works(where: Any) -> None:
    with open_store(where) as store:
        (answer,) = store.answers()
        assert (answer.campaign, answer.guideline_version, dict(answer.ranking.places)) == (
            "",
            1,
            {"p0-0": 1, "p0-1": 2},
        )
        with store.reading() as connection:
            for name, rows in ROWS.items():
                found = [dict(row) for row in connection.execute(select(metadata.tables[name])).mappings()]
                for before, after in zip(rows, sorted(found, key=str), strict=True):
                    kept = {
                        key: bool(after[key]) if isinstance(value, bool) else after[key]
                        for key, value in before.items()
                    }
                    assert kept == before and after.get("campaign", "") == ""
            assert {key["referred_table"] for key in inspect(connection).get_foreign_keys("assignments")} == {
                "items",
                "labelers",
            }
            if connection.dialect.name == "sqlite":
                assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
        with pytest.raises(IntegrityError), store.transaction() as connection:  # the tables still refer to each other
            connection.execute(assignments.update().where(assignments.c.id == 3).values(item_id=99))
        with store.transaction() as connection:  # one prompt may be asked in several campaigns, once in each
            row = {**ROWS["items"][0], "campaign": "style"}
            del row["id"]
            connection.execute(items.insert(), row)
        with pytest.raises(IntegrityError), store.transaction() as connection:
            connection.execute(items.insert(), row)


def test_the_copy_is_of_the_store_before_the_step_whoever_else_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "labels.sqlite"
    engine = create_engine(f"sqlite:///{place}")
    old_store(engine)
    engine.dispose()
    looked = upgrade.revision_of

    def meanwhile(connection: Connection) -> str | None:
        """Between the look and the step of one program, another one takes it."""
        found = looked(connection)
        monkeypatch.setattr(upgrade, "revision_of", looked)
        open_store(place).close()
        return found

    monkeypatch.setattr(upgrade, "revision_of", meanwhile)
    with open_store(place) as store, store.reading() as connection:
        assert looked(connection) == REVISION
    copy = create_engine(f"sqlite:///{place}.before-{REVISION}-was-0003")
    with copy.connect() as connection:
        assert looked(connection) == "0003" and not inspect(connection).has_table("campaigns")
    copy.dispose()


def test_a_store_with_broken_references_is_refused_and_untouched(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'labels.sqlite'}")
    old_store(engine)
    with engine.begin() as connection:  # this engine does not ask for foreign keys
        connection.execute(text("UPDATE assignments SET item_id = 99 WHERE id = 4"))
    with pytest.raises(StoreError, match="is damaged: a row of assignments refers to something that is not in items"):
        open_store(tmp_path)
    with engine.connect() as connection:
        assert upgrade.revision_of(connection) == "0003"
        assert not inspect(connection).has_table("campaigns")
