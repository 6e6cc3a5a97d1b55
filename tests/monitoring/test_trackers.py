"""Trackers get each metric and table once; a failing one stops nothing; one that is not installed is refused."""

import importlib.util
import json
import logging
import shutil
import sqlite3
import sys
import threading
import time
from contextlib import closing
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.runs.small_run import do, ppo_alone, write_data

from triphase.errors import SettingsError
from triphase.monitoring import trackers
from triphase.monitoring.events import EventFile
from triphase.monitoring.metrics import MetricsWriter, read_metrics
from triphase.monitoring.trackers import KINDS, open_trackers, require_trackers
from triphase.records.interruption import stoppable
from triphase.runs import pipeline

ROWS = [{"prompt": "a", "score": 1.5, "parts": {"x": 1}}, {"prompt": "b", "score": None}]


class Library:
    """A stand-in for each library, as far as it is used, which records its calls."""

    __spec__ = ModuleSpec("stand-in", None)

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.figures: list[tuple[int, dict[str, Any]]] = []
        self.tables: list[tuple[str, Any]] = []
        self.ended = 0

    # wandb and trackio

    def init(self, **options: Any) -> "Library":
        self.begun.append(options)
        return self

    def define_metric(self, name: str, step_metric: str) -> None:
        pass

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        plain = {name: value for name, value in values.items() if name != "step"}
        for name, value in plain.items():
            if isinstance(value, SimpleNamespace):
                self.tables.append((name, value))
        numbers = {name: value for name, value in plain.items() if not isinstance(value, SimpleNamespace)}
        if numbers:
            self.figures.append((values["step"] if step is None else step, numbers))

    def Table(self, **content: Any) -> SimpleNamespace:
        return SimpleNamespace(**content)

    def finish(self) -> None:
        self.ended += 1

    # mlflow

    def MlflowClient(self) -> "Library":
        return self

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        self.begun.append({"group": name})
        return "1"

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> SimpleNamespace:
        self.begun[-1] |= tags
        return SimpleNamespace(info=SimpleNamespace(run_id="r"))

    def search_runs(self, experiments: list[str], filter_string: str, max_results: int) -> list[SimpleNamespace]:
        self.begun[-1]["looked for"] = filter_string
        return [SimpleNamespace(info=SimpleNamespace(run_id="r"))]

    def update_run(self, run: str, status: str) -> None:
        assert (run, status) == ("r", "RUNNING")

    def log_metric(self, run: str, name: str, value: float, step: int) -> None:
        self.figures.append((step, {name: value}))

    def log_table(self, run: str, data: dict[str, list[Any]], artifact_file: str) -> None:
        self.tables.append((artifact_file, data))

    def set_terminated(self, run: str) -> None:
        self.ended += 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    for name in KINDS:
        monkeypatch.setitem(sys.modules, name, made)
    return made


@pytest.mark.parametrize("kind", [*KINDS, "tensorboard"])
def test_every_tracker_takes_what_a_phase_gives(
    kind: str, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pandas = SimpleNamespace(DataFrame=lambda rows, columns: (columns, rows))
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    tracker: trackers.Tracker = (
        EventFile(tmp_path) if kind == "tensorboard" else open_trackers([kind], tmp_path, group="mine", phase="ppo")[0]
    )
    tracker.write(1, 0.0, {"ppo/proxy_score": 0.5})
    tracker.table("ppo/samples", 1, ROWS)
    tracker.restart_at(1)
    tracker.write(1, 0.0, {"ppo/proxy_score": 0.75})
    tracker.close()
    tracker.close()
    tracker.write(2, 0.0, {"ppo/proxy_score": 1.0})  # after the end nothing happens
    if kind == "tensorboard":
        assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1
        return
    assert library.figures == [(1, {"ppo/proxy_score": 0.5}), (1, {"ppo/proxy_score": 0.75})]
    assert len(library.tables) == 1 and library.ended == 1 and len(library.begun) == 1
    assert "mine" in str(library.begun[0])
    shown = str(library.tables[0])
    assert all(word in shown for word in ("prompt", "score", "1.5", "{'x': 1}")), shown


@pytest.mark.parametrize("kind", list(KINDS))
def test_one_that_fails_is_said_once_and_stops_nothing(
    kind: str, library: Library, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Library, "log", lambda *a, **k: 1 / 0)
    monkeypatch.setattr(Library, "log_metric", lambda *a, **k: 1 / 0)
    chosen = open_trackers([kind], tmp_path, group="mine", phase="sft")
    with caplog.at_level(logging.WARNING), MetricsWriter(tmp_path, tensorboard=False, trackers=chosen) as metrics:
        for step in (1, 2, 3):
            metrics.write(step, {"sft/loss": 1.0})
    assert [record.getMessage() for record in caplog.records] == [
        f"{kind} is disabled for sft: ZeroDivisionError: division by zero. metrics.jsonl is still written."
    ]
    assert len(read_metrics(metrics.path)) == 3


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(
    ("stopped", "limit"), [(False, "within 0.3 s"), (True, "within 0.1 s after a request to stop")]
)
def test_one_whose_server_hangs_is_left(
    kind: str, stopped: bool, limit: str, library: Library, tmp_path: Path,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(trackers, "SECONDS", 30.0 if stopped else 0.3)
    monkeypatch.setattr(trackers, "STOPPING_SECONDS", 0.1)
    hang = threading.Event()
    for name in ("log", "log_metric"):
        monkeypatch.setattr(Library, name, lambda *a, **k: hang.wait(20))
    chosen, begin = open_trackers([kind], tmp_path, group="mine", phase="sft"), time.monotonic()
    try:
        with caplog.at_level(logging.WARNING), stoppable(lambda: stopped):
            with MetricsWriter(tmp_path, tensorboard=False, trackers=chosen) as metrics:
                for step in (1, 2, 3):
                    metrics.write(step, {"sft/loss": 1.0})
        assert time.monotonic() - begin < 5
    finally:
        hang.set()
    assert [record.getMessage() for record in caplog.records] == [
        f"{kind} is disabled for sft: did not return {limit}. metrics.jsonl is still written."
    ]
    assert len(read_metrics(metrics.path)) == 3


def three_starts(kind: str, folder: Path) -> None:
    """A phase that is begun, resumed, and begun again after its directory was removed."""
    for steps in ((1, 2), (3,), (1,)):
        if steps == (1,):
            shutil.rmtree(folder)
            time.sleep(0.01)
        chosen = open_trackers([kind], folder, group="mine", phase="ppo")
        with MetricsWriter(folder, tensorboard=False, trackers=chosen) as metrics:
            for step in steps:
                metrics.write(step, {"ppo/proxy_score": 0.5})


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_resumed_phase_continues_its_run_and_one_that_is_begun_again_does_not(
    kind: str, library: Library, tmp_path: Path
) -> None:
    three_starts(kind, tmp_path / "ppo")
    first, resumed, again = library.begun
    if kind == "trackio":
        assert [each["resume"] for each in library.begun] == ["never", "allow", "never"]
        return
    key = "id" if kind == "wandb" else "triphase.phase"
    assert first[key] != again[key]
    assert first[key] == resumed["id"] if kind == "wandb" else f"'{first[key]}'" in resumed["looked for"]
    assert kind == "wandb" or key not in resumed  # nothing new was created


def test_what_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"trackers: wandb is not installed; run: pip install 'triphase\[wandb\]'"):
        require_trackers(["wandb"])
    require_trackers([])


def test_a_run_gives_its_figures_and_samples(library: Library, tmp_path: Path) -> None:
    write_data(tmp_path)
    do(ppo_alone(tmp_path, ppo={"iterations": 1}, trackers=["wandb"]), pipeline.run_ppo)
    (row,) = read_metrics(tmp_path / "runs" / "small" / "ppo" / "metrics.jsonl")
    told = {name: value for _, values in library.figures for name, value in values.items()}
    assert told == {name: value for name, value in row.items() if "/" in name}
    assert [name for name, _ in library.tables] == ["ppo/samples"] and library.ended == 1
    assert library.begun[0]["group"] == "small" and library.begun[0]["name"] == "small/ppo"


@pytest.mark.trackers
def test_wandb_itself_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    chosen = open_trackers(["wandb"], tmp_path, group="mine", phase="ppo")
    with MetricsWriter(tmp_path, tensorboard=False, trackers=chosen) as metrics:
        metrics.write(1, {"ppo/proxy_score": 0.5})
        metrics.table("ppo/samples", 1, ROWS)
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb")), sys.path


@pytest.mark.trackers
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_trackio_itself_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))  # read when the library is imported, here first
    chosen = open_trackers(["trackio"], tmp_path, group="mine", phase="ppo")
    with MetricsWriter(tmp_path, tensorboard=False, trackers=chosen) as metrics:
        metrics.write(1, {"ppo/proxy_score": 0.5})
        metrics.table("ppo/samples", 1, ROWS)
    three_starts("trackio", tmp_path / "again")
    with closing(sqlite3.connect(tmp_path / "store" / "mine.db")) as kept:
        steps = kept.execute(
            "select run_id, group_concat(step) from metrics group by run_id order by min(id)"
        ).fetchall()
        assert [each for _, each in steps] == ["1,1", "1,2,3", "1"]
        rows = kept.execute("select run_name, step, metrics from metrics order by id limit 2").fetchall()
    (name, step, figures), (_, _, table) = [(name, step, json.loads(text)) for name, step, text in rows]
    assert (name, step, figures) == ("ppo", 1, {"ppo/proxy_score": 0.5})
    assert [row["prompt"] for row in table["ppo/samples"]["_value"]] == ["a", "b"]


@pytest.mark.trackers
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mlflow uses what SQLAlchemy 2.1 will remove
def test_mlflow_itself_with_a_local_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    monkeypatch.chdir(tmp_path)
    chosen = open_trackers(["mlflow"], tmp_path, group="mine", phase="ppo")
    with MetricsWriter(tmp_path, tensorboard=False, trackers=chosen) as metrics:
        metrics.write(1, {"ppo/proxy_score": 0.5})
        metrics.table("ppo/samples", 1, ROWS)
    client = trackers.importlib.import_module("mlflow").MlflowClient()
    three_starts("mlflow", tmp_path / "again")
    again, before, run = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    for one, steps in ((before, [1, 2, 3]), (again, [1])):
        assert [each.step for each in client.get_metric_history(one.info.run_id, "ppo/proxy_score")] == steps
        assert one.info.status == "FINISHED"
    assert run.data.metrics == {"ppo/proxy_score": 0.5} and run.info.status == "FINISHED"
    assert [each.path for each in client.list_artifacts(run.info.run_id, "ppo")] == ["ppo/samples-000001.json"]
