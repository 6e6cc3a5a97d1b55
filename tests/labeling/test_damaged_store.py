"""A store whose file is damaged ends the `label` commands in one line; the page reports that it cannot be read."""

import random
import sqlite3
from pathlib import Path

import pytest
from tests.labeling.crowd import PLAIN, client, days_of_work, fill, people, served, signed_in
from tests.runs.small_run import write_data

from triphase.cli.main import main
from triphase.labeling.work import item_plan
from triphase.store import open_store
from triphase.store.copying import copy_file

COMMANDS = (
    ["stats"], ["users", "list"], ["campaigns", "list"], ["export", "out.jsonl"], ["import", "prompts.jsonl"],
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    place = tmp_path_factory.mktemp("store") / "labels.sqlite"
    with open_store(place) as store:
        fill(store, 30)
        item_plan.make_items(store, PLAIN, seed=0, now=0.0)
        people(store, "ann", "bob")
        people(store, "lea", role="lead")
        days_of_work(store, PLAIN, names=["ann", "bob"], days=2, now=1_760_000_000.0)
    return place.read_bytes()


def damaged(content: bytes, draw: random.Random) -> bytes:
    page = 4096 * draw.randrange(len(content) // 4096)
    match draw.randrange(3):
        case 0:
            return content[: draw.randrange(len(content))]
        case 1:
            return content[:page] + draw.randbytes(4096) + content[page + 4096 :]
        case _:
            place = page + draw.randrange(120)
            return content[:place] + draw.randbytes(8) + content[place + 8 :]


def test_every_command_ends_in_one_line(
    whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    draw, refused = random.Random(3), 0
    for number in range(40):
        for path in tmp_path.glob("labels*"):
            path.unlink()
        (tmp_path / "labels.sqlite").write_bytes(damaged(whole, draw))
        verb, *rest = COMMANDS[number % len(COMMANDS)]
        words = [
            "label",
            verb,
            *(rest if rest == ["list"] else []),
            "labels.sqlite",
            *(rest if rest != ["list"] else []),
        ]
        code, printed = main(words), capsys.readouterr()
        assert code in (0, 2), (number, words)
        refused += code == 2
        if code == 2:
            assert printed.err.startswith("error: ") and printed.err.count("\n") == 1, (number, words, printed.err)
    assert refused > 8


def test_a_table_that_is_damaged_is_named_with_a_way_out(
    whole: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page on which the rankings begin is noise; every other table can be read."""
    store = tmp_path / "labels.sqlite"
    store.write_bytes(whole)
    connection = sqlite3.connect(store)
    (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'rankings'").fetchone()
    connection.close()
    content = bytearray(whole)
    content[4096 * (root - 1) : 4096 * root] = b"\xff" * 4096
    store.write_bytes(content)
    assert main(["label", "stats", str(store)]) == 2
    error = capsys.readouterr().err
    assert f"{store} is damaged (database disk image is malformed)" in error and ".recover" in error
    with open_store(store) as opened, served(opened) as app:
        answer = signed_in(app, "lea").get("/lead")
        assert answer.status_code == 503 and str(tmp_path) not in answer.text
        assert client(app).get("/sign-in").status_code == 200


@pytest.mark.parametrize("name", ["with # and ?", "100%41", "plain"])
def test_a_store_that_somebody_has_open_is_copied_from_any_directory(whole: bytes, tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    place.mkdir()
    (place / "labels.sqlite").write_bytes(whole)
    with open_store(place) as store:
        people(store, "cy")
        copy_file(place / "labels.sqlite", tmp_path / "copy.sqlite")
    with open_store(tmp_path / "copy.sqlite") as copy, copy.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM labelers").scalar_one() == 4
