"""The tiny task: generated once, always the same, with the gold score by hand."""

import json
import math
from pathlib import Path

import pytest

from triphase.demo.tiny import LONGEST, WORDS, grammar_gold, tiny_directory


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_it_is_made_once_and_always_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = contents(tiny_directory())
    monkeypatch.setenv("TRIPHASE_CACHE", str(tmp_path))
    made = tiny_directory()
    assert made.parent == tmp_path
    assert contents(made) == first
    (made / "mark").write_text("kept")
    assert (tiny_directory() / "mark").read_text() == "kept"


def test_prompts_and_demonstrations() -> None:
    folder = tiny_directory()
    prompts = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in prompts}) == len({row["prompt"] for row in prompts}) == 200
    assert sum(row["split"] == "heldout" for row in prompts) == 40
    heldout = {row["prompt"] for row in prompts if row["split"] == "heldout"}
    demonstrations = [json.loads(line) for line in (folder / "demonstrations.jsonl").read_text().splitlines()]
    assert len(demonstrations) == 2400
    for row in demonstrations:
        words = row["completion"].split()
        assert 2 <= len(words) <= LONGEST and set(words) <= set(WORDS)
        assert row["prompt"] not in heldout


@pytest.mark.parametrize(
    ("response", "finished", "expected"),
    [
        ("", True, 0.0),
        ("sun song friend", True, 2 * math.tanh(1)),
        ("mud rust", True, 2 * math.tanh(-1.4 / 3)),
        ("sun sun sun sun", True, 2 * math.tanh(4 / 3) - 0.7),
        ("tree wind", False, -1.0),
        ("tree wind rain field river stone road tree wind rain field river", True, -0.16),
    ],
)
def test_the_gold_score_by_hand(response: str, finished: bool, expected: float) -> None:
    assert grammar_gold("any prompt", response, finished) == pytest.approx(expected)
