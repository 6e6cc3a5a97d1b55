"""metrics.jsonl: a phase's metrics, one JSON object per line, appended durably and read back whole.

A line is complete or absent: it is written in one call and flushed to the disk, a line cut by a crash is removed when
the file is opened again, and a resumed run first removes the lines after its checkpoint.
"""

import difflib
import errno
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from triphase.errors import RunError
from triphase.monitoring.events import EventFile
from triphase.monitoring.glossary import METRICS
from triphase.monitoring.score_parts import is_score_part
from triphase.monitoring.trackers import Rows, Tracker
from triphase.records.files import disk_errors, make_directory, unshare, write_atomically

FILE_NAME = "metrics.jsonl"

Row = dict[str, Any]
"""One step: ``step``, ``time``, the metrics by name, and ``nonfinite`` (names) if there are any."""


def read_metrics(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl, in order of step; lines of one step are merged. No file, no rows.

    A last line that is still being written is left out; a damaged line elsewhere is a RunError.
    """
    if not path.exists():
        return []
    rows: dict[int, Row] = {}
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        if line.strip():
            row = _parsed(line, path, number)
            kept = rows.setdefault(row["step"], {})
            nonfinite = kept.get("nonfinite", []) + row.get("nonfinite", [])
            kept.update(row)
            if nonfinite:
                kept["nonfinite"] = nonfinite
    return [rows[step] for step in sorted(rows)]


def _parsed(line: bytes, path: Path, number: int) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}, line {number}: not JSON ({error}); remove the line") from None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        raise RunError(f"{path}, line {number}: step is not a whole number; remove the line")
    for name, value in row.items():
        sound = _are_names(value) if name == "nonfinite" else _is_figure(value)
        if not sound:
            raise RunError(f"{path}, line {number}: {name} is {str(value)[:40]!r}, not a number; remove the line")
    return row


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def without_nonfinite(values: Mapping[str, float]) -> Row:
    """The values of a step without those that are NaN or infinite, whose names are listed as ``nonfinite``."""
    finite: Row = {name: value for name, value in values.items() if math.isfinite(value)}
    return (
        finite
        if len(finite) == len(values)
        else finite | {"nonfinite": [name for name in values if name not in finite]}
    )


class MetricsWriter:
    """Appends the metrics of one phase to ``directory``/metrics.jsonl, to TensorBoard files next to it, and to
    trackers.

    Steps never go back: a resumed run calls ``truncate_after`` with its checkpoint's step first.
    """

    def __init__(self, directory: Path, *, tensorboard: bool = True, trackers: Sequence[Tracker] = ()) -> None:
        self.path = directory / FILE_NAME
        make_directory(directory)
        unshare(self.path)
        with disk_errors(self.path):
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
        self._trackers: list[Tracker] = [*([EventFile(directory)] if tensorboard else []), *trackers]
        self._drop_cut_line()
        rows = read_metrics(self.path)
        self._last: Row = rows[-1] if rows else {}

    @property
    def last_step(self) -> int | None:
        """The newest step in the file; None while it is empty."""
        return self._last.get("step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends the metrics of ``step``. A second call for the newest step may add metrics it did not have.

        A metric that is NaN or infinite is left out and its name added to ``nonfinite``: the phase decides whether to
        continue. Raises ValueError for an unregistered name or a step that went back (both defects of the caller).
        """
        self._check(step, values)
        plain = {name: value if type(value) is int else float(value) for name, value in values.items()}
        finite = {name: value for name, value in plain.items() if math.isfinite(value)}
        row: Row = {"step": step, "time": round(time.time(), 3), **without_nonfinite(plain)}
        self._append(row)
        self._last = {**self._last, **row, **plain} if step == self.last_step else {**row, **plain}
        for tracker in self._trackers:
            tracker.write(step, row["time"], finite)

    def table(self, name: str, step: int, rows: Rows) -> None:
        """Passes a table, for example the samples of an iteration, to the trackers that show tables."""
        for tracker in self._trackers:
            tracker.table(name, step, rows)

    def truncate_after(self, step: int) -> None:
        """Removes every line after ``step`` (-1: all), in the file at once and in TensorBoard by its restart mark."""
        if self.last_step is None or self.last_step <= step:
            return
        rows = [row for row in read_metrics(self.path) if row["step"] <= step]
        write_atomically(self.path, b"".join(_line(row) for row in rows))
        os.close(self._file)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND)
        self._last = rows[-1] if rows else {}
        for tracker in self._trackers:
            tracker.restart_at(step + 1)

    def close(self) -> None:
        """Closes the files. May be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        for tracker in self._trackers:
            tracker.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, step: int, figures: Mapping[str, float]) -> None:
        for name in figures:
            if name not in METRICS and not is_score_part(name):
                nearest = difflib.get_close_matches(name, METRICS, n=1)
                hint = f"; did you mean {nearest[0]}?" if nearest else "; declare it in triphase.monitoring"
                raise ValueError(f"metric {name!r} is not registered{hint}")
        if self.last_step is None or step > self.last_step:
            return
        known = {*self._last, *self._last.get("nonfinite", [])}
        repeated = sorted(known & set(figures)) if step == self.last_step else sorted(figures)
        if repeated or step < self.last_step:
            raise ValueError(
                f"{self.path}: step {step} is already written (newest is {self.last_step}; {', '.join(repeated)}); "
                "call truncate_after with the step of the checkpoint before resuming from it"
            )

    def _append(self, row: Row) -> None:
        line = _line(row)
        size = os.fstat(self._file).st_size
        with disk_errors(self.path):
            try:
                if os.write(self._file, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, size)
                raise

    def _drop_cut_line(self) -> None:
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            os.ftruncate(self._file, content.rfind(b"\n") + 1)


def _line(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
