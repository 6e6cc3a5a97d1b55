"""`triphase sweep`: the branches of a grid, each equal to one created by hand; it continues after an interruption."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.runs.small_run import do, files_of, ppo_alone, settings, write_data

from triphase.cli.main import main
from triphase.errors import RunError
from triphase.reports.run_list import line_of
from triphase.reports.study_page import FILE_NAME as STUDY_PAGE
from triphase.reports.sweep_page import FILE_NAME as SWEEP_PAGE
from triphase.reports.sweep_page import sweep_page
from triphase.runs import pipeline
from triphase.runs.locking import locked
from triphase.runs.sweeping import plan_sweep, trained_in_each
from triphase.settings.schema import RunSettings


def chosen(folder: Path, **changes: object) -> RunSettings:
    """PPO alone, of one iteration."""
    return ppo_alone(folder, ppo={"iterations": 1}, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_data(folder)
    do(chosen(folder), pipeline.run_all)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished / "runs", tmp_path / "runs")
    return tmp_path / "runs" / "small"


GRID = ("--ppo.epochs", "1,2", "--ppo.seed", "1")
NAMES = ["epochs-1-seed-1", "epochs-2-seed-1"]


def results(directory: Path) -> dict[str, bytes]:
    return files_of(directory, "*/ppo/final/*.safetensors") | files_of(directory, "*/evaluation/*.jsonl")


def test_a_ppo_run_that_several_points_would_train_alike_is_named(run: Path) -> None:
    def trained(name: str) -> list[str]:
        return trained_in_each(run, plan_sweep(run, run.parent / "small-sweep", {name: "2,3"}))

    assert trained("evaluation.max_prompts") == []
    shutil.rmtree(run / "ppo")
    assert trained("evaluation.max_prompts") == ["ppo"] and trained("ppo.epochs") == []


def test_a_grid(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["sweep", str(run), *GRID]) == 0
    out = capsys.readouterr().out
    directory = run.parent / "small-sweep"
    assert all(f"{name} " in out for name in NAMES) and f"page    {directory}/sweep.html" in out
    page = (directory / "sweep.html").read_text()
    assert all(f'<a href="{name}/report.html">' in page for name in NAMES) and "<script" not in page
    # one of them by hand; and the same call again does nothing
    assert main(["branch", str(run), "hand", "--ppo.epochs", "2", "--ppo.seed", "1", "--run"]) == 0
    made = {name.split("/", 1)[1]: content for name, content in results(directory).items() if name.startswith(NAMES[1])}
    by_hand = {name.split("/", 1)[1]: text for name, text in results(run.parent).items() if name.startswith("hand/")}
    assert made == by_hand != {}
    before = files_of(directory, "*/**/*")
    monkeypatch.setattr("triphase.cli.deferred.perform", lambda *_, **__: pytest.fail("there is nothing to do"))
    assert main(["sweep", str(run), *GRID]) == 0
    assert files_of(directory, "*/**/*") == before


@pytest.mark.parametrize("page", [SWEEP_PAGE, STUDY_PAGE])
def test_a_report_of_several_runs_names_their_page(
    page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / page).touch()
    assert main(["report", str(tmp_path)]) == 2
    told = f"{tmp_path}: has several runs, which {tmp_path}/{page} compares; give one of them"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("parallel", ["1", "2"])
def test_a_run_that_fails_does_not_stop_the_others(
    parallel: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--ppo.scorer.options.factor", "x,2", "--parallel", parallel]
    assert main(["sweep", str(run), *words]) == 1
    out = capsys.readouterr().out
    assert "failed  factor-x: ppo.scorer.function: tests.rewards.functions:lengths returns" in out
    assert line_of(run.parent / "small-sweep" / "factor-2").stands == "evaluated"


@pytest.mark.parametrize("parallel", ["1", "2"])
def test_a_sweep_of_a_run_that_another_process_holds_says_so(
    parallel: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(run, "wait"):
        assert main(["sweep", str(run), *GRID, "--parallel", parallel]) == 1
    said = capsys.readouterr()
    assert said.out.count("is held by process") == 2 and "error" not in said.err
    assert main(["sweep", str(run), *GRID]) == 0


def test_points_with_the_same_start_share_it(tmp_path: Path) -> None:
    write_data(tmp_path)
    do(settings(tmp_path, method="lora", reward={"epochs": 1, "require_better_than_chance": False}),
       pipeline.run_sft, pipeline.run_sampling, pipeline.run_labeling, pipeline.run_reward)  # fmt: skip
    run, directory = tmp_path / "runs" / "small", tmp_path / "runs" / "sweep"
    points = plan_sweep(run, directory, {"seed": "0,1", "ppo.kl-coefficient": "0.1,0.2"})
    sources = {point.path.name: point.source.name for point in points}
    assert sources == {
        "seed-0-kl-coefficient-0.1": "small",
        "seed-0-kl-coefficient-0.2": "small",
        "seed-1-kl-coefficient-0.1": "small",
        "seed-1-kl-coefficient-0.2": "seed-1-kl-coefficient-0.1",
    }
    shutil.rmtree(run / "reward" / "final")
    with pytest.raises(RunError, match="has not finished reward, from which a sweep starts"):
        plan_sweep(run, directory, {"ppo.seed": "1"})


def test_refusals(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        ((), "a sweep needs a setting and its values"),
        (("--ppo.epoch", "1,2"), "did you mean ppo.epochs?"),
        (("--ppo.epochs", "1,,2"), "has an empty value"),
        (("--ppo.epochs", "1,1"), "give each value once"),
        (("--ppo.epochs", "1,x"), "is not allowed"),
        (("--output", "a,b"), "cannot be varied"),
        (("--ppo.microbatch-tokens", "64,128"), "--ppo.microbatch-tokens: cannot be varied"),
        (("--model.packed-decoding", "true,false"), "only settings that affect results"),
        (("--ppo.epochs", "1", "--parallel", "0"), "--parallel: 0 is not allowed"),
        (("--ppo.epochs", "1", "--name", "../x"), "without a path"),
        (("--ppo.epochs", "1", "--name", "small"), "is not a sweep"),
    ):
        assert main(["sweep", str(run), *words]) == 2, words
        assert said in capsys.readouterr().err.strip().splitlines()[-1]
    assert [path.name for path in run.parent.iterdir()] == ["small"]


def test_every_text_of_the_page_is_escaped(run: Path) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    page = sweep_page(run.parent, {"small": {"ppo.seed": hostile}, hostile: {hostile: "\u202e"}})
    assert "<img" not in page and "&lt;img" in page and "\u202e" not in page


def carried(run: Path, *words: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "triphase", "sweep", str(run), "--ppo.epochs", "1,2,3", *words]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--parallel", "2")])
def test_a_sweep_that_is_killed_goes_on_with_the_same_bytes(
    words: tuple[str, ...], finished: Path, tmp_path: Path
) -> None:
    """Killed at several moments; its workers end with it."""
    run = Path(shutil.copytree(finished / "runs" / "small", tmp_path / "runs" / "small"))
    twin = Path(shutil.copytree(run, tmp_path / "twin" / "small"))
    assert carried(twin).wait() == 0
    for seconds in (4, 7, 10, 13):
        process = carried(run, *words)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for _ in range(100):
            if not workers(run):
                break
            time.sleep(0.1)
        assert not workers(run)
    assert carried(run, *words).wait() == 0
    assert results(run.parent / "small-sweep") == results(twin.parent / "small-sweep") != {}
    assert not [path for path in (run.parent / "small-sweep").rglob("*.part")]
    assert len(json.loads((run.parent / "small-sweep" / "sweep.json").read_text())["points"]) == 3


def workers(run: Path) -> list[int]:
    """Processes that work on runs of the sweep."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                words = Path("/proc", name, "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(run.parent) in words and "attended" in words:
                found.append(int(name))
    return found


def test_a_report_alone_does_not_finish_a_run(run: Path) -> None:
    directory = run.parent / "small-sweep"
    assert main(["sweep", str(run), *GRID]) == 0
    first = directory / NAMES[0]
    shutil.rmtree(first / "ppo" / "final")
    shutil.rmtree(first / "evaluation")
    assert main(["report", str(first)]) == 0 and (first / "report.html").is_file()
    assert line_of(first).stands != "evaluated"
    assert main(["sweep", str(run), *GRID]) == 0
    assert line_of(first).stands == "evaluated" and (first / "ppo" / "final").is_dir()


def test_a_sweep_of_another_start_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(run), *GRID]) == 0
    assert main(["branch", str(run), "other", "--ppo.kl-coefficient", "0.5"]) == 0
    assert main(["run", str(run.parent / "other")]) == 0
    capsys.readouterr()
    assert main(["sweep", str(run.parent / "other"), *GRID, "--name", "small-sweep"]) == 2
    assert "belongs to another sweep: ppo.kl_coefficient is" in capsys.readouterr().err


def test_one_value_written_twice_is_one_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(run), "--ppo.kl-coefficient", "0.1,0.10"]) == 2
    assert "kl-coefficient-0.1 and kl-coefficient-0.10 are the same run" in capsys.readouterr().err
