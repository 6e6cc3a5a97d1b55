"""The whole state of a phase, gathered in one place, and the loop that carries it forward.

What is not here does not exist: random numbers come from seeds that are derived for each purpose and index, so no
generator has a state, and data order follows from the step. A phase that is stopped and started again therefore
continues with the very same bytes.
"""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from triphase.training.checkpoint import load_latest, save_checkpoint
from triphase.training.step import Updater


class Emit(Protocol):
    """Where metrics go: a writer that can forget what came after a checkpoint."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Keep one line of metrics."""
        ...

    def truncate_after(self, step: int) -> None:
        """Forget the lines of later steps; they will be made again."""
        ...


@dataclass(slots=True)
class TrainingState:
    """Counters, plain values and the trained tensors of one phase.

    Attributes:
        updater: the trained parameters with their optimizer.
        position: steps (SFT, reward) or iterations (PPO) that are done.
        values: controllers and running figures, all of them plain numbers.
    """

    updater: Updater
    position: int = 0
    values: dict[str, Any] = field(default_factory=dict)

    def save(self, parent: Path, *, keep: int) -> None:
        """Write a checkpoint."""
        values = {
            "position": self.position,
            "step_count": self.updater.step_count,
            "skipped_in_a_row": self.updater.skipped_in_a_row,
            "values": self.values,
        }
        save_checkpoint(parent, self.position, self.updater.tensors(), values, keep=keep)

    def resume(self, parent: Path) -> bool:
        """Continue from the newest whole checkpoint, where there is one."""
        checkpoint = load_latest(parent)
        if checkpoint is None:
            return False
        self.updater.load_tensors(checkpoint.tensors)
        self.updater.step_count = checkpoint.values["step_count"]
        self.updater.skipped_in_a_row = checkpoint.values["skipped_in_a_row"]
        self.position = checkpoint.values["position"]
        self.values = checkpoint.values["values"]
        return True


class Stopped(Exception):  # noqa: N818 - not an error: the person asked for it
    """The person asked to stop; the state is saved and the same command continues."""


class StopRequest:
    """Remembers one Ctrl-C or SIGTERM, so that a step can end; a second one stops at once."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Listen for signals inside the block."""
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def drive(
    state: TrainingState,
    total: int,
    advance: Callable[[int], Mapping[str, float]],
    *,
    checkpoints: Path,
    keep: int,
    every: int,
    emit: Emit,
    stop: StopRequest | None = None,
    on_step: Callable[[Mapping[str, float]], None] | None = None,
    begin: Callable[[], None] | None = None,
) -> None:
    """Carry ``state`` to ``total`` steps, resuming and saving on the way.

    ``advance(position)`` does one step and returns its metrics; ``begin()`` is called first, unless a checkpoint is
    resumed. Metrics are written before the checkpoint that
    contains them, and those after the checkpoint are forgotten on resuming: no gap and no double.

    Raises:
        Stopped: the person asked for it; the state is saved.
    """
    if not state.resume(checkpoints) and begin is not None:
        begin()
    emit.truncate_after(state.position)
    while state.position < total and not state.values.get("finished"):
        metrics = advance(state.position)
        state.position += 1
        emit.write(state.position, metrics)
        if on_step is not None:
            on_step(metrics)
        asked = stop is not None and stop.asked
        if asked or state.position % every == 0 or state.position == total or state.values.get("finished"):
            state.save(checkpoints, keep=keep)
        if asked:
            raise Stopped
