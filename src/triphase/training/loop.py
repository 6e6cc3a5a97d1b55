"""The loop of every phase: steps, metrics, checkpoints, and resuming from the newest of them."""

import copy
import logging
import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from triphase.errors import is_out_of_memory
from triphase.training.checkpoint_places import CHECKPOINTS
from triphase.training.state import TrainingState
from triphase.training.step import MAX_SKIPPED_IN_A_ROW
from triphase.training.stopping import Stopped, StopRequest
from triphase.training.unsaved_start import UnsavedStart

_log = logging.getLogger(__name__)

Judged = tuple[int, float] | None
"""The step whose weights some metrics judge, and how good they are; None if they judge none."""


class MetricsSink(Protocol):
    """Where metrics go: a writer that can truncate at a checkpoint."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line of metrics."""
        ...

    def truncate_after(self, step: int) -> None:
        """Remove the lines of later steps; they will be written again."""
        ...


class Phase(Protocol):
    """What a phase does; the loop decides when. Only `advance` must be implemented, the others do nothing here.

    Attributes:
        state: counters, typed values and the trained tensors: everything that a checkpoint stores.
        total_steps: total number of steps (iterations of PPO).
    """

    state: TrainingState[Any]
    total_steps: int

    def open(self, directory: Path) -> None:
        """Before anything else, resumed or not: the phase may store files of its own in ``directory``."""
        return

    def start(self) -> None:
        """What precedes the first step; skipped if a checkpoint is resumed."""
        return

    def advance(self, step: int) -> Mapping[str, float]:
        """Do one step (from 0) and return its metrics."""
        ...

    def halve_microbatches(self) -> int | None:
        """Halve the tokens of a pass, after an out-of-memory error, and release what was freed.

        Returns the new number; None if it cannot be halved.
        """
        return None

    def resume_microbatches(self) -> None:
        """Take over the halved tokens of a pass from a resumed state, unless the setting was changed since."""
        return

    def judge(self, position: int, metrics: Mapping[str, float]) -> Judged:
        """Which weights the metrics of step ``position`` (from 1) judge, and how good they are; higher is better."""
        return None

    def finish(self) -> None:
        """After the last step: training is over."""
        return


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """How the loop stores the results of a phase.

    Attributes:
        directory: the phase's own; it contains the checkpoints.
        metrics: takes the metrics of each step.
        keep: number of newest checkpoints to keep.
        every: number of steps between checkpoints.
        keep_best: number of best judged checkpoints to keep as well.
        save_start: whether the weights from before the first step are kept.
        skipped_in_a_row: maximum number of consecutive skipped steps; then the phase fails.
        stop: the user's request to stop, checked after each step.
        on_step: called with the metrics of each step.
    """

    directory: Path
    metrics: MetricsSink
    keep: int
    every: int = 1
    keep_best: int = 0
    save_start: bool = False
    skipped_in_a_row: int = MAX_SKIPPED_IN_A_ROW
    stop: StopRequest | None = None
    on_step: Callable[[Mapping[str, float]], None] | None = None

    def save(self, state: TrainingState[Any]) -> None:
        """Write a checkpoint of ``state``: rank 0 does, once no rank reads an earlier one any more."""
        strategy = state.updater.strategy
        strategy.barrier()
        tensors = state.updater.tensors(on_lead=True)
        if strategy.is_lead:
            state.save(self.directory / CHECKPOINTS, keep=self.keep, keep_best=self.keep_best, trained=tensors)


def run_loop(phase: Phase, options: LoopOptions) -> None:
    """Run ``phase`` to its end, resuming if the directory contains a checkpoint.

    The checkpoint of a judged step is kept too. Metrics are written before the checkpoint that contains them, and those
    after the checkpoint are removed on resuming: no gap and no duplicate.

    Every rank of several runs the phase; only rank 0 writes, since the sink of the others discards everything.

    Raises:
        Stopped: the user requested it; the state is saved.
    """
    state, strategy = phase.state, phase.state.updater.strategy
    # A phase that skipped every step has failed, however few there are.
    state.updater.most_skipped_in_a_row = min(options.skipped_in_a_row, max(1, phase.total_steps))
    # Rank 0 may have started servers or trackers before, which may take longer than parallel.timeout_seconds.
    strategy.from_lead(lambda: None)
    phase.open(options.directory)
    start: UnsavedStart | None = None
    if not state.resume(options.directory / CHECKPOINTS):
        phase.start()
        if options.save_start:
            options.save(state)
        elif strategy.world == 1:
            start = UnsavedStart(state, options.directory)
    else:
        phase.resume_microbatches()
    options.metrics.truncate_after(state.position)
    if strategy.world > 1:
        strategy.require_same("the trained weights at the start of a phase", state.updater.digest())
    try:
        while not _has_ended(phase):
            _step(phase, options, start)
            asked = strategy.any(options.stop is not None and options.stop.asked)
            if asked or _has_ended(phase) or state.position % options.every == 0 or state.position in state.scores:
                options.save(state)
                if start is not None:
                    start.close()
                    start = None
            if asked:
                raise Stopped
    finally:
        if start is not None:
            start.close()
    phase.finish()


def _step(phase: Phase, options: LoopOptions, start: UnsavedStart | None) -> None:
    state = phase.state
    metrics = _advanced(phase, options, start)
    state.position += 1
    state.note_fingerprint()
    judged = phase.judge(state.position, metrics)
    if judged is not None and math.isfinite(judged[1]):
        state.scores[judged[0]] = judged[1]
    options.metrics.write(state.position, metrics)
    if options.on_step is not None:
        options.on_step(metrics)


def _advanced(phase: Phase, options: LoopOptions, start: UnsavedStart | None) -> Mapping[str, float]:
    """One step, retried in smaller passes after an out-of-memory error.

    If nothing was trained yet the step starts again, else the phase continues from its newest checkpoint (or from its
    ``start``), like a run that was ended by the error and restarted with smaller passes.
    """
    while True:
        state = phase.state
        updater, values = state.updater, copy.deepcopy(state.values)
        begun, counted = updater.begun, (updater.step_count, updater.skipped_in_a_row)
        try:
            return phase.advance(state.position)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or updater.strategy.world > 1:
                raise
            traceback.clear_frames(error.__traceback__)  # releases the tensors that they hold
            most = phase.halve_microbatches()
            if most is None:
                raise
            failed, halved = error if updater.begun != begun else None, state.values.halved
        updater.discard()
        updater.step_count, updater.skipped_in_a_row = counted
        state.values = values
        if failed is not None and not state.resume(options.directory / CHECKPOINTS):
            if start is None:
                raise failed
            start.restore(state)
        state.values.halved = halved
        options.metrics.truncate_after(state.position)
        _log.warning(
            "not enough memory: passes of at most %d tokens from step %d on (changes rounding "
            "at most); set microbatch_tokens to this to start with it",
            *(most, state.position + 1),
        )


def _has_ended(phase: Phase) -> bool:
    return phase.state.position >= phase.total_steps or bool(phase.state.values.finished)
