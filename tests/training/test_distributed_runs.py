"""Whole runs by two processes: the metrics of one, a rank that dies or hangs, and continuing afterwards."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from benchmarks.same_figures import PHASES, judged
from safetensors.torch import load_file
from tests.runs.small_run import settings, write_data
from tests.training.worlds import ended, environment, free_port

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(900)]
QUIET = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs")
    write_data(made)
    return made


def config(folder: Path, name: str, *, method: str = "lora", **changes: Any) -> Path:
    plain = settings(folder, method=method, name=name, **changes).model_dump(mode="json")
    plain["labeling"].pop("import_", None)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return path


def triphase(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "triphase", *words]
    return subprocess.run(command, env=os.environ | QUIET | more, capture_output=True, text=True, check=False)


def figures(run: Path) -> dict[str, list[dict[str, Any]]]:
    """The metrics of each phase without what the clock decides."""
    return {
        phase: [
            {name: value for name, value in json.loads(line).items() if "seconds" not in name and name != "time"}
            for line in (run / phase / "metrics.jsonl").read_text().splitlines()
        ]
        for phase in ("sft", "reward", "ppo")
    }


def require_close(first: Path, second: Path) -> None:
    for phase, rows in figures(first).items():
        others = figures(second)[phase]
        assert [list(row) for row in rows] == [list(row) for row in others]
        for row, other in zip(rows, others, strict=True):
            for name, value in row.items():
                assert other[name] == pytest.approx(value, rel=1e-4, abs=1e-5), (phase, name)
        for path in sorted((first / phase / "final").glob("*.safetensors")):
            tensors, found = load_file(path), load_file(second / phase / "final" / path.name)
            assert all(float((tensors[name] - found[name]).abs().max()) < 1e-5 for name in tensors), path


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    """The run of one process."""
    found = triphase("run", str(config(folder, "alone")))
    assert found.returncode == 0, found.stderr
    return folder / "runs" / "alone"


def test_ranks_with_a_divided_base_leave_what_one_process_leaves(folder: Path, alone: Path) -> None:
    both = triphase("run", str(config(folder, "divided", parallel={"strategy": "fsdp2"})), "--processes", "2")
    assert both.returncode == 0, both.stderr
    assert "2 processes train together (strategy: fsdp2, backend: gloo)" in both.stderr
    divided = folder / "runs" / "divided"
    require_close(alone, divided)
    log = (divided / "ranks" / "1.log").read_text()
    assert all(f"{phase} starts" in log for phase in ("sft", "reward", "ppo")) and "ERROR" not in log
    # One process reads it, and goes on with it.
    assert triphase("evaluate", str(divided)).returncode == 0


def test_all_weights_are_trained_in_parts_and_left_whole(folder: Path) -> None:
    sizes = {"iterations": 1, "batch_size": 8, "minibatch_size": 8, "epochs": 1, "max_response_tokens": 10}
    ppo = {**sizes, "method": "full", "optimizer": {"learning_rate": 1e-4}}
    runs = []
    for name, processes in (("whole", 1), ("parts", 2)):
        parallel = {"strategy": "fsdp2"} if processes > 1 else {}
        path = config(folder, name, method="full", ppo=ppo, parallel=parallel)
        found = triphase("run", str(path), *(["--processes", str(processes)] if processes > 1 else []))
        assert found.returncode == 0, found.stderr
        runs.append(folder / "runs" / name)
    assert "strategy: fsdp2" in found.stderr
    require_close(*runs)
    # The files are those of an ordinary model.
    for phase in ("sft", "ppo"):
        names = [{path.name for path in (run / phase / "final").iterdir()} for run in runs]
        assert names[0] == names[1] and "model.safetensors" in names[0]
    # Rank 0 alone reads the policy beside the base, both in parts.
    first, second = (
        [json.loads(line) for line in (run / "evaluation" / "samples.jsonl").read_text().splitlines()] for run in runs
    )
    assert [row["response"] for row in first] == [row["response"] for row in second]
    assert {row["policy"] for row in second} == {"sft", "ppo"} and any(row["reference_kl"] for row in second)
    moved = [[row["reference_kl"] for row in rows] for rows in (first, second)]
    assert moved[1] == pytest.approx(moved[0], rel=1e-3, abs=1e-5)


def test_two_processes_leave_what_one_leaves(folder: Path, alone: Path) -> None:
    both = triphase("run", str(config(folder, "both")), "--processes", "2")
    assert both.returncode == 0, both.stderr
    assert "2 processes train together (strategy: replicated, backend: gloo)" in both.stderr
    assert re.search(r"rank 1: cpu, threads: 1, process \d+ on ", both.stderr)
    runs = folder / "runs"
    require_close(runs / "alone", runs / "both")
    lines, is_same = judged(runs / "alone", dict.fromkeys(PHASES, runs / "both"), 1e-3)
    assert is_same and not any("then" in line for line in lines), lines
    left = [
        {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file() and "tfevents" not in path.name}
        for run in (runs / "alone", runs / "both")
    ]
    assert left[1] - left[0] == {"ranks/1.log", "ranks/token"}
    assert left[0] == left[1] - {"ranks/1.log", "ranks/token"}
    log = (runs / "both" / "ranks" / "1.log").read_text()
    assert all(f"{phase} starts" in log for phase in ("sft", "reward", "ppo")) and "ERROR" not in log
    # Nothing is left to do, for torchrun too.
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    again = subprocess.run(
        [sys.executable, *command, "-m", "triphase", "run", str(folder / "both.yaml")],
        env=os.environ | QUIET,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert "2 processes train together" in again.stderr


def wait_for(found: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.1)


def started(path: Path, run: Path, done: int) -> tuple[subprocess.Popen[str], int]:
    """A run by two processes that has done so many iterations of PPO, and the process of rank 1."""
    command = [sys.executable, "-m", "triphase", "run", str(path), "--processes", "2"]
    began = subprocess.Popen(
        command, env=os.environ | QUIET, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    wait_for(lambda: began.poll() is not None or last_checkpoint(run) >= done)
    assert began.poll() is None, began.stderr.read() if began.stderr else ""
    return began, int(re.findall(r"process (\d+) joined", (run / "ranks" / "1.log").read_text())[-1])


def last_checkpoint(run: Path) -> int:
    return max((int(path.name) for path in (run / "ppo" / "checkpoints").glob("[0-9]*")), default=0)


def message(began: subprocess.Popen[str]) -> str:
    _, errors = began.communicate(timeout=120)
    return errors


@pytest.mark.parametrize("strategy", ["replicated", "fsdp2"])
def test_a_rank_that_dies_or_hangs_ends_the_run_and_it_goes_on(folder: Path, strategy: str) -> None:
    name = f"lost-{strategy}"
    ppo = {"batch_size": 8, "minibatch_size": 8, "epochs": 1, "max_response_tokens": 10, "iterations": 80}
    path = config(folder, name, ppo=ppo, parallel={"timeout_seconds": 15.0, "strategy": strategy})
    run = folder / "runs" / name
    began, other = started(path, run, done=2)
    os.kill(other, signal.SIGKILL)
    killed = time.monotonic()
    errors = message(began)
    assert time.monotonic() - killed < 30 and began.returncode == 1
    assert "error: rank 1 was ended by SIGKILL" in errors and str(run / "ranks" / "1.log") in errors
    before = last_checkpoint(run)

    began, other = started(path, run, done=before + 2)
    rows = [json.loads(line)["step"] for line in (run / "ppo" / "metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(1, len(rows) + 1))  # no gap and no double
    os.kill(other, signal.SIGSTOP)
    stopped = time.monotonic()
    errors = message(began)
    assert time.monotonic() - stopped < 15 + 30 and began.returncode == 1
    assert "error: rank 1 did not arrive in time (parallel.timeout_seconds)" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(other, 0)
    before = last_checkpoint(run)

    # A person's wish reaches all ranks through the first; then one process goes on.
    began, _ = started(path, run, done=before + 1)
    began.send_signal(signal.SIGINT)
    assert "stopped; finished work is kept" in message(began)
    assert began.returncode == 130
    assert "was asked to stop" in (run / "ranks" / "1.log").read_text().splitlines()[-1]
    assert len((run / "ppo" / "metrics.jsonl").read_text().splitlines()) == last_checkpoint(run) < 80
    alone = triphase("run", str(path))
    assert alone.returncode == 0, alone.stderr
    assert [row["step"] for row in figures(run)["ppo"]] == list(range(1, 81))


def test_torchrun_starts_a_run_again_that_lost_a_rank(folder: Path) -> None:
    ppo = {"batch_size": 8, "minibatch_size": 8, "epochs": 1, "max_response_tokens": 10, "iterations": 30}
    path, run = config(folder, "elastic", ppo=ppo), folder / "runs" / "elastic"
    words = ["--nproc-per-node", "2", "--max-restarts", "1", "--rdzv-backend", "c10d"]
    words += ["--rdzv-endpoint", f"localhost:{free_port()}", "-m", "triphase", "run", str(path)]
    began = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words],
        env=os.environ | QUIET,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    wait_for(lambda: began.poll() is not None or last_checkpoint(run) >= 3)
    log = run / "ranks" / "1.log"
    os.kill(int(re.findall(r"process (\d+) joined", log.read_text())[-1]), signal.SIGKILL)
    errors = message(began)
    assert began.returncode == 0, errors
    assert errors.count("2 processes train together") == 2 and log.read_text().count("joined") == 2
    assert [row["step"] for row in figures(run)["ppo"]] == list(range(1, 31))  # no gap and no double


def as_ranks(*places: tuple[Path, str]) -> list[tuple[int, str]]:
    """`triphase run CONFIG` in a separate directory for each rank; exit codes and output."""
    port = free_port()
    return ended(
        [
            subprocess.Popen(
                [sys.executable, "-m", "triphase", "run", name],
                cwd=place,
                env=environment(rank, port) | QUIET,
                stderr=subprocess.STDOUT,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank, (place, name) in enumerate(places)
        ],
        timeout=120,
    )


def test_ranks_of_other_settings_and_another_directory_are_refused(folder: Path) -> None:
    first, second = config(folder, "differs"), folder / "other"
    second.mkdir()
    other = config(folder, "differs2", seed=1)
    results = as_ranks((folder, str(first)), (folder, str(other)))
    assert [code for code, _ in results] == [2, 2]
    assert all("differs from rank 0 in the setting name" in text and "the setting seed" in text for _, text in results)
    assert not (folder / "runs" / "differs").exists()
    # The same settings, and a relative output that is another directory for rank 1.
    plain = yaml.safe_load(first.read_text()) | {"output": "here"}
    for place in (folder, second):
        (place / "relative.yaml").write_text(yaml.safe_dump(plain))
    results = as_ranks((folder, "relative.yaml"), (second, "relative.yaml"))
    assert results[1][0] == 2 and "is not the directory that rank 0 writes" in results[1][1], results
    assert results[0][0] == 1 and "rank 1 has ended" in results[0][1], results


@pytest.mark.parametrize("strategy", ["replicated", "fsdp2"])
def test_people_who_are_to_rank_are_no_fault_of_a_rank(folder: Path, strategy: str) -> None:
    chosen = {"labeling": {"source": "people"}, "parallel": {"strategy": strategy}}
    found = triphase("run", str(config(folder, f"people-{strategy}", **chosen)), "--processes", "2")
    assert found.returncode == 3, found.stderr
    assert found.stderr.strip().splitlines()[-1].startswith("waiting for people to rank")
    assert "error" not in found.stderr
    assert "ERROR" not in (folder / "runs" / f"people-{strategy}" / "ranks" / "1.log").read_text()
