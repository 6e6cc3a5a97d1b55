"""The checksums of a comparison: an edit is reported in one line, and a killed process is not an edit."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from triphase.records.files import append_json_lines
from triphase.runs.comparison_sums import watched


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The directory of a comparison that one call has worked on."""
    with watched(tmp_path) as told:
        assert told == []
        append_json_lines(tmp_path / "responses.jsonl", [{"response": "sun"}, {"response": "sea"}])
        append_json_lines(tmp_path / "scores.jsonl", [{"key": "a", "score": 1.0}])
    return tmp_path


def told_of(directory: Path) -> list[str]:
    with watched(directory) as told:
        return list(told)


EDITS: dict[str, Callable[[Path], object]] = {
    "another score": lambda path: path.write_text(path.read_text().replace("1.0", "9.0")),
    "a line more": lambda path: append_json_lines(path, [{"key": "a", "score": 9.0}]),
    "a line less": lambda path: path.write_text(""),
    "no newline": lambda path: path.write_text(path.read_text().rstrip()),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_told_until_the_file_is_restored(kept: Path, name: str) -> None:
    path = kept / "scores.jsonl"
    before = path.read_bytes()
    assert told_of(kept) == []
    EDITS[name](path)
    for _ in range(2):
        (line,) = told_of(kept)
        assert "scores.jsonl was changed after the last comparison" in line and "\n" not in line
    with watched(kept):
        append_json_lines(path, [{"key": "b", "score": 2.0}])
    assert len(told_of(kept)) == 1
    path.write_bytes(before)
    assert told_of(kept) == []
    path.unlink()
    assert told_of(kept) == [] == told_of(kept)


@pytest.mark.parametrize("cut", ["", '{"response": "su'])
def test_what_a_killed_call_left_is_no_edit(kept: Path, cut: str) -> None:
    path, sums = kept / "responses.jsonl", kept / "sums.json"
    with watched(kept):
        append_json_lines(path, [{"response": "mud"}])
        killed = sums.read_bytes()
    sums.write_bytes(killed)  # as it is where the call never came to its end
    with path.open("a") as file:
        file.write(cut)
    assert told_of(kept) == []
    append_json_lines(path, [])  # takes a cut line away
    assert told_of(kept) == []
    sums.write_bytes(killed)
    path.write_text(path.read_text().replace("sun", "fog"))
    assert len(told_of(kept)) == 1


def test_a_failing_call_notes_what_it_kept(kept: Path) -> None:
    with pytest.raises(RuntimeError), watched(kept):
        append_json_lines(kept / "scores.jsonl", [{"key": "b", "score": 2.0}])
        raise RuntimeError
    assert told_of(kept) == []
    (kept / "scores.jsonl").write_text((kept / "scores.jsonl").read_text().replace("2.0", "3.0"))
    assert len(told_of(kept)) == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"files": {"scores.jsonl": 1}}', '{"under_way": false}', "[" * 9999])
def test_damaged_sums_are_told_once(kept: Path, text: str) -> None:
    (kept / "sums.json").write_text(text)
    (line,) = told_of(kept)
    assert "sums.json is damaged and was started anew" in line
    assert told_of(kept) == [] and json.loads((kept / "sums.json").read_text())["files"]["scores.jsonl"]["bytes"] > 0


def test_a_comparison_of_an_older_version_has_no_sums(kept: Path) -> None:
    (kept / "sums.json").unlink()
    assert told_of(kept) == []
