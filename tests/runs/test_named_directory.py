"""The given directory is the one that is used, by whatever path, and however it was copied."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.runs.small_run import do, ppo_alone, settings, write_data

from triphase.cli.main import main
from triphase.errors import RunError
from triphase.monitoring.progress import SilentProgress
from triphase.runs import pipeline
from triphase.runs.best_of import sample_best_of
from triphase.runs.directory import RunDirectory
from triphase.runs.locking import locked
from triphase.settings.loading import load_settings
from triphase.settings.places import absolute


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("named")
    write_data(folder)
    do(ppo_alone(folder, ppo={"iterations": 1}), pipeline.run_all)
    return folder / "runs" / "small"


def sums(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def unfinished(run: Path) -> Path:
    shutil.rmtree(run / "ppo" / "final")
    (run / "evaluation" / "samples.jsonl").unlink()
    return run


def test_a_path_that_climbs_from_a_link_leads_where_it_leads(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """near/link/../small is far/small, although it reads like near/small."""
    far, near = (shutil.copytree(finished, tmp_path / name / "small") for name in ("far", "near"))
    (tmp_path / "far" / "inner").mkdir()
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far" / "inner")
    unfinished(far), unfinished(near)
    before = sums(near)
    assert main(["run", f"{tmp_path}/near/link/../small"]) == 0
    assert sums(near) == before and (far / "ppo" / "final").is_dir()
    shutil.rmtree(near)
    assert main(["ppo", f"{tmp_path}/near/link/../small"]) == 0
    assert not near.exists()


def test_files_of_settings_climb_alike(tmp_path: Path) -> None:
    (tmp_path / "far" / "inner").mkdir(parents=True)
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far" / "inner")
    text = "name: x\nmodel: {name: 'embedded:tiny'}\ndata: {prompts: [{path: link/../p.jsonl}]}\n"
    (tmp_path / "near" / "c.yaml").write_text(text)
    (place,) = load_settings(tmp_path / "near" / "c.yaml").data.prompts
    assert place.path == str(tmp_path.resolve() / "far" / "p.jsonl")


@pytest.mark.parametrize("name", [".lock", "sums.json", "sft/x"])
def test_a_pipe_in_what_is_worked_on_is_not_waited_for(tmp_path: Path, name: str) -> None:
    (tmp_path / "sft").mkdir()
    os.mkfifo(tmp_path / name)
    with pytest.raises(RunError, match="is a pipe"), locked(tmp_path, "wait"):
        raise AssertionError


@pytest.mark.parametrize("path", ["a/b", "a/../b", "./a//b/", "link/c", "link", "gone/../x", "a" * 300])
def test_other_paths_are_as_they_always_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    monkeypatch.chdir(tmp_path)
    assert str(absolute(Path(path))) == os.path.abspath(path)


def test_a_sweep_of_the_directory_above(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished, tmp_path / "small")
    monkeypatch.chdir(run / "ppo")
    assert main(["sweep", "..", "--ppo.epochs", "1"]) == 0
    assert (tmp_path / "small-sweep" / "epochs-1" / "report.html").is_file()
    assert not list((run / "ppo").glob("*sweep*"))


def test_a_copy_by_hard_links_leaves_the_other_run_as_it_was(finished: Path, tmp_path: Path) -> None:
    base = shutil.copytree(finished, tmp_path / "base")
    subprocess.run(["cp", "-al", base, tmp_path / "copy"], check=True)
    copy = unfinished(tmp_path / "copy")
    before, lock = sums(base), (base / ".lock").read_text()
    assert main(["run", str(copy)]) == 0
    assert sums(base) == before and (base / ".lock").read_text() == lock
    assert (copy / "ppo" / "final").is_dir()


def test_the_lock_of_a_copy_by_hard_links_is_its_own(tmp_path: Path) -> None:
    for name in ("base", "copy"):
        (tmp_path / name).mkdir()
    with locked(tmp_path / "base", "wait"):
        pass
    os.link(tmp_path / "base" / ".lock", tmp_path / "copy" / ".lock")
    with locked(tmp_path / "copy", "wait"), locked(tmp_path / "base", "wait"):
        assert (tmp_path / "copy" / ".lock").stat().st_ino != (tmp_path / "base" / ".lock").stat().st_ino


@pytest.mark.parametrize("verb", [["label", "import"], ["label", "stats"], ["label", "users", "list"]], ids=" ".join)
@pytest.mark.parametrize(("make", "says"), [(os.link, "hard link"), (os.symlink, "symbolic link")])
def test_a_store_that_is_also_that_of_another_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: list[str], make: object, says: str
) -> None:
    write_data(tmp_path)
    for name in ("base", "copy"):
        with RunDirectory(settings(tmp_path, name=name)).held():
            pass
    base, copy = tmp_path / "runs" / "base", tmp_path / "runs" / "copy"
    assert main(["label", "import", str(base), str(tmp_path / "prompts.jsonl")]) == 0
    make(base / "labels.sqlite", copy / "labels.sqlite")  # type: ignore[operator]
    before = sums(base)
    capsys.readouterr()
    more = [str(tmp_path / "demonstrations.jsonl")] if verb[-1] == "import" else []
    assert main([*verb, str(copy), *more]) == 2
    assert f"a {says}" in capsys.readouterr().err
    assert sums(base) == before and not list(copy.glob("labels.sqlite-*"))


@pytest.mark.parametrize("verb", ["check", "run"])
def test_check_and_run_refuse_a_store_with_two_names_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    write_data(tmp_path)
    for name in ("base", "copy"):
        with RunDirectory(settings(tmp_path, name=name, method="lora")).held():
            pass
    base, copy = tmp_path / "runs" / "base", tmp_path / "runs" / "copy"
    assert main(["label", "import", str(base), str(tmp_path / "prompts.jsonl")]) == 0
    os.link(base / "labels.sqlite", copy / "labels.sqlite")
    before = sums(base)
    capsys.readouterr()
    assert main([verb, str(copy)]) == 2
    assert "labels.sqlite: is the same file as another one (a hard link)" in capsys.readouterr().err
    assert sums(base) == before and not (copy / "sft" / "final").exists()


def test_a_sweep_is_not_carried_out_through_a_link(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished, tmp_path / "small")
    words = ["sweep", str(run), "--ppo.epochs", "1"]
    assert main(words) == 0
    point = tmp_path / "small-sweep" / "epochs-1"
    point.rename(tmp_path / "elsewhere")
    point.symlink_to(tmp_path / "elsewhere")
    before = sums(tmp_path / "elsewhere")
    capsys.readouterr()
    assert main(words) == 2
    assert f"{point}: is a symbolic link" in capsys.readouterr().err
    assert sums(tmp_path / "elsewhere") == before


def test_a_sweep_says_which_of_its_runs_was_edited(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its page draws curves of them all, and a run that is finished is not looked at by its own report again."""
    run = shutil.copytree(finished, tmp_path / "small")
    words = ["sweep", str(run), "--ppo.epochs", "1"]
    assert main(words) == 0
    assert "note: " not in capsys.readouterr().err
    metrics = tmp_path / "small-sweep" / "epochs-1" / "ppo" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("proxy_score", "gold_score"))
    assert main(words) == 0
    assert "note: epochs-1: ppo/metrics.jsonl has changed since its phase ended" in capsys.readouterr().err


def test_a_sweep_shows_the_figures_of_its_runs_and_not_an_edited_summary(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "small")
    words = ["sweep", str(run), "--ppo.epochs", "1"]
    assert main(words) == 0
    summary = tmp_path / "small-sweep" / "epochs-1" / "summary.json"
    before = json.loads(summary.read_text())
    summary.write_text(json.dumps({**before, "ppo": {**before["ppo"], "reference_kl": 12345.0}}))
    assert main(words) == 0
    assert json.loads(summary.read_text()) == before
    assert "12345" not in (tmp_path / "small-sweep" / "sweep.html").read_text()


def test_best_of_n_looks_at_what_it_keeps(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "small")
    assert sample_best_of([run], 2, SilentProgress()) == []
    scores = run / "best-of-n" / "scores.jsonl"
    scores.write_text(scores.read_text().replace("1", "2"))
    (note,) = sample_best_of([run], 2, SilentProgress())
    assert "scores.jsonl was changed after the last comparison" in note
    (run / "best-of-n").rename(tmp_path / "elsewhere")
    (run / "best-of-n").symlink_to(tmp_path / "elsewhere")
    before = sums(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="best-of-n: is a symbolic link"):
        sample_best_of([run], 4, SilentProgress())
    assert sums(tmp_path / "elsewhere") == before
