"""Names of strangers on a terminal: nothing in them is markup, and no control character gets through."""

import json
from pathlib import Path

import pytest
from sqlalchemy import insert

from triphase.cli import label
from triphase.cli.main import main
from triphase.labeling.web.templating import _moment
from triphase.records.types import Message, Prompt, Ranking, Response
from triphase.store import open_store
from triphase.store.schema import labelers

NAMES = [
    "[/x]",
    "[bold red]ann",
    "[link=http://x.example]bob",
    "a\x1b[31mred",
    "bell\x07",
    "back\u202eward",
    "two\nlines",
]
ACTING = ("\x1b", "\x07", "\u202e", "\x9b")


@pytest.fixture
def run(tmp_path: Path) -> str:
    """A store as an older version may have left it: names with anything in them."""
    with open_store(tmp_path) as store:
        store.add_prompts([Prompt("p", (Message("user", "Hi"),))])
        store.add_responses(Response(f"r{n}", "p", f"text {n}", "m") for n in range(2))
        with store.transaction() as connection:
            rows = [{"name": name, "role": "labeler", "status": "active"} for name in NAMES]
            connection.execute(insert(labelers), rows)
        store.add_rankings(Ranking(f"k{n}", "p", name, {"r0": 1, "r1": 2}, (), 0.0) for n, name in enumerate(NAMES))
    return str(tmp_path)


def test_names_are_shown_as_they_stand(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["stats", run], ["users", "list", run]):
        assert main(["label", *command]) == 0
        said = capsys.readouterr().out
        assert "[/x]" in said and "[bold red]ann" in said and "⟦U+001B⟧" in said
        assert not any(sign in said for sign in ACTING)


def test_columns_and_files_are_shown_as_they_stand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "[red]rankings\x1b[31m.jsonl"
    file.write_text(json.dumps({"prompt": "Hi", "responses": ["a", "b"], "[/odd]\x1b[2J": 1}) + "\n")
    label.import_file(str(tmp_path), [file])
    label.export_file(str(tmp_path), tmp_path / "[/out].jsonl")
    said = capsys.readouterr().out
    assert "[red]rankings" in said and "[/odd]" in said and "[/out].jsonl" in said
    assert not any(sign in said for sign in ACTING)


@pytest.mark.parametrize("seconds", [1e300, -1e300, float("inf"), float("nan"), 1.7e12 * 1000])
def test_times_that_are_none_do_not_close_a_page(seconds: float) -> None:
    """Stores of older versions may hold them."""
    assert _moment(seconds).endswith(" s")


@pytest.mark.parametrize(
    "row",
    [
        {"\x1b[31mpromt": "Hi"},
        {"prompt": "Hi", "responses": ["a", "b"], "labeler": ["\x1b[31m"]},
        {"type": "\x1b[31m"},
        {"prompt": "Hi", "response_a": "a", "response_b": "b", "winner": "\u202e\x1b[31m"},
    ],
)
def test_refusals_carry_no_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str], row: dict) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    assert main(["label", "import", str(tmp_path), str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert not any(sign in said for sign in ACTING)
