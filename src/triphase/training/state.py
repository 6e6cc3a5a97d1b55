"""The whole state of a phase, gathered in one place, and the loop that carries it forward.

What is not here does not exist: random numbers come from seeds that are derived for each purpose and index, so no
generator has a state, and data order follows from the step. A phase that is stopped and started again therefore
continues with the very same bytes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from triphase.training.checkpoint import kept_steps, load_latest, save_checkpoint
from triphase.training.digests import digest_of
from triphase.training.step import Updater
from triphase.training.stopping import Stopped, StopRequest

NAMED = "named"
FINGERPRINTED = 3
"""Steps at the start of a phase whose weights are summed."""


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
        values: controllers and running figures, all of them plain numbers. Under ``NAMED`` stand the steps that a
            message names or may name; their checkpoints stay.
        scores: how good the weights were after each judged step; higher is better.
        fingerprints: a sum of the trained weights after each of the first steps, to tell whether a run repeats.
    """

    updater: Updater
    position: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)

    def save(self, parent: Path, *, keep: int, keep_best: int = 0) -> None:
        """Write a checkpoint; the newest ``keep`` stay, and the ``keep_best`` of the highest score."""
        values = {
            "position": self.position,
            "step_count": self.updater.step_count,
            "skipped_in_a_row": self.updater.skipped_in_a_row,
            "rate_scale": self.updater.rate_scale,
            "scores": {str(step): score for step, score in self.scores.items()},
            "fingerprints": self.fingerprints,
            "values": self.values,
        }
        there = {*kept_steps(parent), self.position}
        best = sorted((step for step in self.scores if step in there), key=lambda step: (-self.scores[step], -step))
        tensors = self.updater.tensors()
        save_checkpoint(
            parent, self.position, tensors, values, keep=keep, spare={*best[:keep_best], *self.values.get(NAMED, ())}
        )

    def resume(self, parent: Path) -> bool:
        """Continue from the newest whole checkpoint, where there is one."""
        checkpoint = load_latest(parent)
        if checkpoint is None:
            return False
        self.updater.load_tensors(checkpoint.tensors)
        self.updater.step_count = checkpoint.values["step_count"]
        self.updater.skipped_in_a_row = checkpoint.values["skipped_in_a_row"]
        self.updater.rate_scale = checkpoint.values.get("rate_scale", 1.0)
        self.position = checkpoint.values["position"]
        self.values = checkpoint.values["values"]
        self.scores = {int(step): score for step, score in checkpoint.values.get("scores", {}).items()}
        self.fingerprints = checkpoint.values.get("fingerprints", {})
        return True

    def note_fingerprint(self) -> None:
        """Keep the sum of the trained weights, while the phase is at its first steps."""
        if self.position <= FINGERPRINTED:
            self.fingerprints[str(self.position)] = digest_of(self.updater.parameters)


Judge = Callable[[int, Mapping[str, float]], tuple[int, float] | None]
"""(position, its metrics) → the step whose weights the metrics judge, and how good they are; None where they do not."""


def drive(
    state: TrainingState,
    total: int,
    advance: Callable[[int], Mapping[str, float]],
    *,
    checkpoints: Path,
    keep: int,
    every: int,
    emit: Emit,
    keep_best: int = 0,
    judge: Judge | None = None,
    stop: StopRequest | None = None,
    on_step: Callable[[Mapping[str, float]], None] | None = None,
    begin: Callable[[], None] | None = None,
    save_start: bool = False,
) -> None:
    """Carry ``state`` to ``total`` steps, resuming and saving on the way.

    ``advance(position)`` does one step and returns its metrics; ``begin()`` is called first, unless a checkpoint is
    resumed, and ``save_start`` keeps what it left. A step that ``judge`` judges is kept too. Metrics are written before
    the checkpoint that contains them, and those after the checkpoint are forgotten on resuming: no gap and no double.

    Raises:
        Stopped: the person asked for it; the state is saved.
    """
    if not state.resume(checkpoints):
        if begin is not None:
            begin()
        if save_start:
            state.save(checkpoints, keep=keep, keep_best=keep_best)
    emit.truncate_after(state.position)
    while state.position < total and not state.values.get("finished"):
        metrics = advance(state.position)
        state.position += 1
        state.note_fingerprint()
        verdict = judge(state.position, metrics) if judge is not None else None
        if verdict is not None and math.isfinite(verdict[1]):
            state.scores[verdict[0]] = verdict[1]
        emit.write(state.position, metrics)
        if on_step is not None:
            on_step(metrics)
        asked = stop is not None and stop.asked
        ends = state.position == total or bool(state.values.get("finished"))
        if asked or ends or state.position % every == 0 or state.position in state.scores:
            state.save(checkpoints, keep=keep, keep_best=keep_best)
        if asked:
            raise Stopped
