"""A store of the schema with decisions per prompt: each campaign that one overruled keeps its decision."""

from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, select, text

from triphase.labeling.work.conflicts import conflicts
from triphase.store import open_store, upgrade
from triphase.store.schema import adjudications

PLACES = {"ann": (1, 2), "bob": (2, 1)}


def rows() -> list[tuple[str, dict[str, Any]]]:
    """Ann and Bob contradict each other on p0 to p3; the lead ranked p0 and p1 and let p2 stand; p3 is not decided."""
    asked = {"p0": ("", "style"), "p1": ("style",), "p2": ("", "style", "tone"), "p3": ("style",)}
    found: list[tuple[str, dict[str, Any]]] = [
        ("labelers", {"name": name, "role": "labeler", "status": "active"}) for name in ("ann", "bob", "lea")
    ]
    for number, (prompt, campaigns) in enumerate(asked.items()):
        found.append(
            ("prompts", {"id": prompt, "position": number, "messages": '[["user","hi"]]', "kind": "", "split": "train"})
        )
        for k in range(2):
            response = {"id": f"{prompt}-{k}", "prompt_id": prompt, "position": k, "text": f"text {k}", "model": "m"}
            found.append(("responses", {**response, "finished": True}))
        found += [
            ("rankings", ranking(f"{prompt} {campaign} {name}", prompt, name, PLACES[name], "label", campaign))
            for campaign in campaigns
            for name in PLACES
        ]
    for prompt in ("p0", "p1"):
        found.append(("rankings", ranking(f"d {prompt}", prompt, "lea", (1, 2), "adjudication", "")))
    for prompt, about in (("p0", "d p0"), ("p1", "d p1"), ("p2", None)):
        decision = {"prompt_id": prompt, "ranking_id": about, "decided_by": "lea", "decided_at": 9.0, "note": "so"}
        found.append(("adjudications", {**decision, "decision": "ranked" if about else "stands"}))
    return found


def ranking(id_: str, prompt: str, by: str, places: tuple[int, int], purpose: str, campaign: str) -> dict[str, Any]:
    given = f'{{"{prompt}-0":{places[0]},"{prompt}-1":{places[1]}}}'
    return {
        "id": id_, "prompt_id": prompt, "purpose": purpose, "status": "active", "labeler": by, "places": given,
        "order_shown": "[]", "submitted_at": 2.0, "note": "", "campaign": campaign,
    }  # fmt: skip


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The place of a store of the schema 0004."""
    place = (
        tmp_path / "labels.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres").new_database()
    )
    engine = create_engine(f"sqlite:///{place}" if request.param == "sqlite" else place)
    config = Config()
    config.set_main_option("script_location", str(Path(upgrade.__file__).with_name("migrations")))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        for table, row in rows():
            names, values = ", ".join(row), ", ".join(f":{name}" for name in row)
            connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)  # noqa: S608
    engine.dispose()
    return place


def test_what_was_decided_stays_decided_and_what_was_overruled_stays_so(where: Any) -> None:
    with open_store(where) as store:
        with store.reading() as connection:
            found = connection.execute(select(adjudications).order_by(adjudications.c.prompt_id)).all()
        assert sorted((one.prompt_id, one.campaign, one.decision) for one in found) == [
            ("p0", "", "ranked"), ("p0", "style", "ranked"), ("p1", "style", "ranked"),
            ("p2", "", "stands"), ("p2", "style", "stands"), ("p2", "tone", "stands"),
        ]  # fmt: skip
        decided = {one.ranking.id: one.campaign for one in store.answers() if one.purpose == "adjudication"}
        assert sorted(decided.values()) == ["", "style", "style"]
        assert {one.ranking_id: one.campaign for one in found if one.ranking_id} == decided
        assert [(one.prompt_id, one.campaign) for one in conflicts(store)] == [("p3", "style")]
        targets = {group.prompt.id: [pair.target for pair in group.pairs] for group in store.ranked_groups("train")}
        assert targets == {"p0": [1.0], "p1": [1.0], "p2": [0.5], "p3": [0.5]}, "as under the older program"
