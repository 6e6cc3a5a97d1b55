"""Files that are complete or absent, and the errors if the disk refuses."""

import errno
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triphase.errors import RunError
from triphase.records import files
from triphase.records.files import (
    append_json_lines,
    atomic_directory,
    atomic_file,
    disk_errors,
    fingerprint,
    read_json_lines,
    write_atomically,
    write_json,
)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_takes_its_place_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_atomically(path, "eins")
    write_atomically(path, "zwei: ü")
    assert path.read_text(encoding="utf-8") == "zwei: ü"
    assert names(path.parent) == ["a.txt"]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_number_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        append_json_lines(tmp_path / "a.jsonl", [{"loss": float("inf")}])
    assert not any(tmp_path.iterdir())


def test_a_directory_takes_its_place_whole(tmp_path: Path) -> None:
    path = tmp_path / "final"
    for content in ("one", "two"):
        with atomic_directory(path) as aside:
            assert not (path / "a").exists() or (path / "a").read_text() == "one"
            (aside / "a").write_text(content)
    assert (path / "a").read_text() == "two"
    with pytest.raises(ZeroDivisionError), atomic_directory(path) as aside:
        (aside / "b").write_text("half")
        raise ZeroDivisionError
    assert names(tmp_path) == ["final"]
    assert names(path) == ["a"]


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "no permission"),
     (errno.EDQUOT, "quota"), (errno.EIO, "cannot be written")],
)  # fmt: skip
def test_the_disk_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    write_atomically(tmp_path / "a.txt", "old")

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(RunError, match=words) as caught:
        write_atomically(tmp_path / "a.txt", "new")
    assert str(tmp_path / "a.txt") in str(caught.value) and "\n" not in str(caught.value)
    assert (tmp_path / "a.txt").read_text() == "old"
    with pytest.raises(RunError, match=words), atomic_directory(tmp_path / "d") as aside:
        (aside / "x").write_text("x")
    assert names(tmp_path) == ["a.txt"]


def test_a_file_where_a_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(RunError, match="part of this path is a file"):
        write_atomically(tmp_path / "a" / "b" / "c", "x")


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), disk_errors(tmp_path):
        raise ZeroDivisionError


def test_lines_are_appended_and_a_torn_last_one_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_json_lines(path) == []
    append_json_lines(path, [{"step": 1}, {"step": 2, "note": "ü"}])
    append_json_lines(path, [{"step": 3}])
    whole = [{"step": 1}, {"step": 2, "note": "ü"}, {"step": 3}]
    assert read_json_lines(path) == whole
    with path.open("ab") as file:
        file.write(b'{"step": 4')
    assert read_json_lines(path) == whole
    path.write_bytes(b"{}\n{broken\n{}\n")
    with pytest.raises(RunError, match=r"metrics.jsonl:2: damaged line"):
        read_json_lines(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9) | st.none()), max_size=5))
def test_what_is_appended_is_read(tmp_path: Path, records: list[dict[str, int | str | None]]) -> None:
    path = tmp_path / "a.jsonl"
    path.unlink(missing_ok=True)
    append_json_lines(path, records)
    assert read_json_lines(path) == records


def test_the_fingerprint_is_the_sha256_sum(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert fingerprint(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    for place, reason in ((tmp_path / "gone", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(RunError, match=rf"cannot be read \({reason}\); check it and its permissions"):
            fingerprint(place)  # nothing is written, so no remedy for that
