"""Trackers that get a phase's metrics in addition to metrics.jsonl and TensorBoard, by `trackers`.

Optional: any failure in one is logged once, and training continues without it. Each phase is a separate run there, in
one group (wandb), project (trackio) or experiment (MLflow) with the name of the run.
"""

import hashlib
import importlib
import importlib.util
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from triphase.errors import SettingsError, first_line_of
from triphase.records.bounded_calls import NoAnswer, Worker
from triphase.records.interruption import is_stop_asked

_log = logging.getLogger(__name__)
Rows = Sequence[Mapping[str, Any]]

_METRICS, _TAG = "metrics.jsonl", "triphase.phase"
SECONDS, STOPPING_SECONDS = 120.0, 5.0
"""Time-out of one call into a tracker's library, and of one after a request to stop."""


class Tracker(Protocol):
    """The receiver of one phase's metrics."""

    def write(self, step: int, moment: float, figures: Mapping[str, float]) -> None:
        """Log the metrics of one step."""
        ...

    def restart_at(self, step: int) -> None:
        """The phase was resumed from before ``step``, which will be logged again."""
        ...

    def table(self, name: str, step: int, rows: Rows) -> None:
        """Log a table of texts and numbers, for example the samples of an iteration."""
        ...

    def close(self) -> None:
        """End the phase's run."""
        ...


class _Guarded:
    """Isolates training from a tracker: none of its errors gets through, and every call has a time-out."""

    kind = ""

    def __init__(self, directory: Path, group: str, phase: str) -> None:
        self._directory, self._group, self._phase = directory, group, phase
        self._open: Any = None
        self._broken = False
        self._began = 0.0
        self._worker = Worker(self._call, seconds=SECONDS, check=self._check, name=f"tracker {self.kind}")

    def write(self, step: int, moment: float, figures: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._do("_write", step, figures)

    def restart_at(self, step: int) -> None:
        """Steps are logged again under their own numbers; their earlier values stay as well."""

    def table(self, name: str, step: int, rows: Rows) -> None:
        """See `Tracker`."""
        columns = sorted({key for row in rows for key in row})
        plain = [[_cell(row.get(column)) for column in columns] for row in rows]
        self._do("_table", name, step, columns, plain)

    def close(self) -> None:
        """See `Tracker`."""
        if self._open is not None:
            self._do("_end")
        self._open, self._broken = None, True
        self._worker.close()

    def _do(self, method: str, *arguments: Any) -> None:
        if self._broken:
            return
        self._began = time.monotonic()
        try:
            _, error = self._worker.call(method, *arguments)
        except NoAnswer as late:
            error = late
        if error is not None:  # an unreachable network, a full disk, a changed interface
            self._broken = True
            kind = "" if isinstance(error, NoAnswer) else f"{type(error).__name__}: "
            reason = f"{kind}{first_line_of(error)}"
            _log.warning("%s is disabled for %s: %s. %s is still written.", self.kind, self._phase, reason, _METRICS)

    def _call(self, method: str, *arguments: Any) -> None:
        """In the worker's thread, always the same one."""
        if self._open is None:
            self._open = self._begin(importlib.import_module(self.kind))
        getattr(self, method)(*arguments)

    def _check(self) -> None:
        if is_stop_asked() and time.monotonic() - self._began > STOPPING_SECONDS:
            raise NoAnswer(f"did not return within {STOPPING_SECONDS:g} s after a request to stop")

    def _begin(self, library: Any) -> Any:
        raise NotImplementedError

    def _identity(self) -> tuple[str, bool]:
        """An id that is the same for every start of one phase of one run, and whether this start resumes it.

        The time of its first metric is a part of it: a run that is begun again in the place of another is a new one.
        """
        lines, begun = list[bytes](), None
        with suppress(OSError, ValueError, KeyError, TypeError):
            lines = (self._directory / _METRICS).read_bytes().splitlines()
            begun = json.loads(lines[0])["time"] if lines else None
        id_ = hashlib.sha256(f"{self._directory.resolve()} {begun}".encode()).hexdigest()[:16]
        return id_, len(lines) > 1


class Wandb(_Guarded):
    """Weights & Biases; `WANDB_MODE=offline` stores everything locally."""

    kind = "wandb"

    def _begin(self, library: Any) -> Any:
        self._library = library
        run = library.init(
            project=os.environ.get("WANDB_PROJECT", "triphase"), group=self._group, name=f"{self._group}/{self._phase}",
            id=self._identity()[0], resume="allow", reinit="create_new", dir=str(self._directory),
        )  # fmt: skip
        run.define_metric("*", step_metric="step")
        return run

    def _write(self, step: int, figures: Mapping[str, float]) -> None:
        self._open.log({"step": step, **figures})

    def _table(self, name: str, step: int, columns: list[str], rows: list[list[Any]]) -> None:
        self._open.log({"step": step, name: self._library.Table(columns=columns, data=rows)})

    def _end(self) -> None:
        self._open.finish()


class Trackio(_Guarded):
    """trackio, which stores its metrics on this machine."""

    kind = "trackio"

    def _begin(self, library: Any) -> Any:
        _, resumes = self._identity()
        how = "allow" if resumes else "never"
        library.init(project=self._group, name=self._phase.replace("/", "-"), resume=how, embed=False)
        return library

    def _write(self, step: int, figures: Mapping[str, float]) -> None:
        self._open.log(dict(figures), step=step)

    def _table(self, name: str, step: int, columns: list[str], rows: list[list[Any]]) -> None:
        frame = importlib.import_module("pandas").DataFrame(rows, columns=columns)
        self._open.log({name: self._open.Table(dataframe=frame)}, step=step)

    def _end(self) -> None:
        self._open.finish()


class MLflow(_Guarded):
    """MLflow at `MLFLOW_TRACKING_URI`, or at its own default."""

    kind = "mlflow"

    def _begin(self, library: Any) -> Any:
        client = library.MlflowClient()
        found = client.get_experiment_by_name(self._group)
        experiment = client.create_experiment(self._group) if found is None else found.experiment_id
        id_, resumes = self._identity()
        before = client.search_runs([experiment], f"tags.`{_TAG}` = '{id_}'", max_results=1) if resumes else []
        run = before[0] if before else client.create_run(experiment, run_name=self._phase, tags={_TAG: id_})
        self._run = run.info.run_id
        if before:
            client.update_run(self._run, status="RUNNING")
        return client

    def _write(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._open.log_metric(self._run, name, float(value), step=step)

    def _table(self, name: str, step: int, columns: list[str], rows: list[list[Any]]) -> None:
        cells = {column: [row[place] for row in rows] for place, column in enumerate(columns)}
        self._open.log_table(self._run, data=cells, artifact_file=f"{name}-{step:06d}.json")

    def _end(self) -> None:
        self._open.set_terminated(self._run)


KINDS: Mapping[str, type[_Guarded]] = {kind.kind: kind for kind in (Wandb, Trackio, MLflow)}


def open_trackers(names: Sequence[str], directory: Path, *, group: str, phase: str) -> list[Tracker]:
    """The trackers of one phase; each opens its run at the first metric."""
    return [KINDS[name](directory, group, phase) for name in names]


def require_trackers(names: Sequence[str]) -> None:
    """Refuse trackers whose library is not installed.

    Raises:
        SettingsError: names it, with the remedy.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise SettingsError(f"trackers: {name} is not installed; run: pip install 'triphase[{name}]'")


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
