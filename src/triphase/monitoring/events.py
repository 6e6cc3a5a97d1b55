"""TensorBoard's event files: the same metrics as in metrics.jsonl.

Optional: any failure here is logged once, and training continues. TensorBoard's own record writer is used, since
torch's would import torch.
"""

import itertools
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)
_numbers = itertools.count()


class EventFile:
    """One event file in ``directory``, made at the first event."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._records: Any = None
        self._broken = False

    def write(self, step: int, moment: float, figures: Mapping[str, float]) -> None:
        """Adds the metrics of one step."""
        values = [{"tag": name, "simple_value": value} for name, value in figures.items()]
        self._add(wall_time=moment, step=step, summary={"value": values})

    def restart_at(self, step: int) -> None:
        """Makes TensorBoard drop the earlier values of ``step`` and all later ones."""
        self._add(wall_time=time.time(), step=step, session_log={"status": "START"})

    def table(self, name: str, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """TensorBoard has no tables; samples.jsonl contains them."""

    def close(self) -> None:
        """Closes the file; later events are ignored."""
        try:
            if self._records is not None:
                self._records.close()
        except Exception as error:
            self._give_up(error)
        self._records, self._broken = None, True

    def _add(self, **fields: Any) -> None:
        if self._broken:
            return
        try:
            from tensorboard.compat.proto.event_pb2 import Event

            if self._records is None:
                self._records = self._open()
                self._records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            self._records.write(Event(**fields).SerializeToString())
            self._records.flush()
        except Exception as error:  # a missing package, a full disk, a changed interface: none may stop a training run
            self._give_up(error)

    def _open(self) -> Any:
        from tensorboard.summary.writer.record_writer import RecordWriter

        name = f"events.out.tfevents.{int(time.time()):010d}.triphase.{os.getpid()}.{next(_numbers)}"
        return RecordWriter((self._directory / name).open("wb"))

    def _give_up(self, error: Exception) -> None:
        if not self._broken:
            _log.warning(
                "TensorBoard files are disabled for %s: %s. metrics.jsonl is still written.", self._directory, error
            )
        self._broken = True
