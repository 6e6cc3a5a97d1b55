"""Samples of the rollouts, for display: JSON lines that a resumed phase continues without gap or duplicate."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from triphase.records.files import append_json_lines, make_directory, read_json_lines, write_json_lines

FILE_NAME = "samples.jsonl"


class SampleLog:
    """``samples.jsonl`` of a phase; every line has its ``iteration``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        make_directory(path.parent)
        self._newest: int | None = None

    def write(self, iteration: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append the samples of an iteration, after removing those of an earlier try of it (or of a later one)."""
        if iteration <= self._last():
            self._truncate_from(iteration)
        append_json_lines(self.path, [{"iteration": iteration, **row} for row in rows])
        self._newest = iteration

    def read(self, iteration: int) -> list[dict[str, Any]]:
        """The samples of an iteration."""
        return [row for row in read_json_lines(self.path) if row["iteration"] == iteration]

    def _last(self) -> int:
        if self._newest is None:
            self._newest = max((row["iteration"] for row in read_json_lines(self.path)), default=-1)
        return self._newest

    def _truncate_from(self, iteration: int) -> None:
        write_json_lines(self.path, [row for row in read_json_lines(self.path) if row["iteration"] < iteration])
