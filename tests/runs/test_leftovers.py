"""A run that is refused before it has done anything leaves no files; directories with content stay."""

from pathlib import Path

import pytest

from triphase.errors import SettingsError, WaitingForPeople
from triphase.records.files import make_directory
from triphase.runs.leftovers import not_there, removed_if_refused


def refused(directory: Path, *files: str, error: type[BaseException] = SettingsError) -> None:
    made = not_there(directory)
    make_directory(directory)
    with pytest.raises(error), removed_if_refused(made):
        for name in files:
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text("x")
        raise error("no")


def test_notes_alone_go_with_the_directories_that_were_made_for_them(tmp_path: Path) -> None:
    refused(tmp_path / "runs" / "deep" / "new", ".lock", "config.yaml", "log.jsonl", "reward/taken.json")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_anything_else_stays(tmp_path: Path) -> None:
    refused(tmp_path / "new", "config.yaml", "labels.sqlite")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["config.yaml", "labels.sqlite"]


def test_one_that_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    refused(tmp_path / "old", "config.yaml")
    assert (tmp_path / "old" / "config.yaml").is_file()


def test_a_neighbor_keeps_the_directory_above(tmp_path: Path) -> None:
    directory = tmp_path / "runs" / "new"
    made = not_there(directory)
    make_directory(directory)
    (tmp_path / "runs" / "other").mkdir()
    with pytest.raises(SettingsError), removed_if_refused(made):
        raise SettingsError("no")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other"]


@pytest.mark.parametrize("error", [RuntimeError, WaitingForPeople, KeyboardInterrupt])
def test_what_is_no_refusal_keeps_its_log(tmp_path: Path, error: type[BaseException]) -> None:
    refused(tmp_path / "new", "log.jsonl", error=error)
    assert (tmp_path / "new" / "log.jsonl").is_file()
