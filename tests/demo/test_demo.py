"""The settings of the demo, and the cache of its generated files."""

from pathlib import Path

import pytest

from triphase.demo.cache import cached_directory
from triphase.demo.configuration import demo_settings


@pytest.mark.parametrize("tiny", [True, False])
def test_its_data_are_there_and_the_arguments_are_laid_on(tiny: bool) -> None:
    found = demo_settings(tiny=tiny, output="somewhere", seed=7)
    assert (found.output, found.seed, found.name) == ("somewhere", 7, "tiny" if tiny else "demo")
    sources = (*found.data.demonstrations, *found.data.prompts)
    assert sources and all(Path(source.path).is_absolute() and Path(source.path).is_file() for source in sources)


def test_a_cached_directory_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPHASE_CACHE", str(tmp_path / "cache"))
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("content")

    for _ in range(2):
        assert (cached_directory("thing", make) / "file").read_text() == "content"
    assert len(made) == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["thing"]


def test_what_fails_on_the_way_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPHASE_CACHE", str(tmp_path))

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        cached_directory("thing", fail)
    assert list(tmp_path.iterdir()) == []


def test_another_process_may_be_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPHASE_CACHE", str(tmp_path))

    def make(folder: Path) -> None:
        (folder / "file").write_text("ours")
        (tmp_path / "thing").mkdir()
        (tmp_path / "thing" / "file").write_text("theirs")

    assert (cached_directory("thing", make) / "file").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]
