"""The share of a PPO iteration that checkpoints and guards take, on the demo's model and sizes.

    python -m benchmarks.overhead [--iterations 3]

Runs the phase as `triphase ppo` does, with a checkpoint after each iteration, an alarm guard that keeps checkpoints to
go back to, run-time invariants and the sums for `run --verify`, and times what is spent inside each of them. Prints a
table and, last, one JSON line; the first iteration warms up and is not counted.
"""

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.ours_ppo import ppo_phase, shared_model
from triphase.monitoring.alarms import Limits
from triphase.monitoring.metrics import FILE_NAME, MetricsWriter, read_metrics
from triphase.phases import experience, minibatch, rewards
from triphase.phases.guards import AlarmGuard
from triphase.settings.guards import GuardSettings
from triphase.training.loop import LoopOptions, run_loop
from triphase.training.state import TrainingState
from triphase.training.step import Updater

# What is timed, by the part of the overhead that it is: (owner, name).
PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "checkpoint": ((TrainingState, "save"),),
    "sums for --verify": ((TrainingState, "note_fingerprint"),),
    "alarms": ((AlarmGuard, "check_alarms"),),
    "metrics": ((MetricsWriter, "write"),),
    "invariants": (
        (experience, "require_lengths"),
        (experience, "require_zero_reference_kl"),
        (rewards, "require_scores_on_last_token"),
        (minibatch, "require_first_minibatch"),
    ),
    "non-finite gradients": ((Updater, "_broken_gradients"),),
}


class Stopwatch:
    """Seconds spent in functions that are wrapped, by part, for each iteration."""

    def __init__(self) -> None:
        self.seconds: list[dict[str, float]] = [{}]

    def wrapped(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*given, **options)
            finally:
                now = self.seconds[-1]
                now[part] = now.get(part, 0.0) + time.perf_counter() - start

        return timed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--layers", default="10")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    phase = ppo_phase(shared_model(options.layers, "auto"), options.iterations + 1)
    watch, ends = Stopwatch(), [time.perf_counter()]

    def on_step(metrics: object) -> None:
        ends.append(time.perf_counter())
        watch.seconds.append({})

    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        guard = AlarmGuard(
            GuardSettings(on_alarm="rollback"),
            Limits(),
            lambda: read_metrics(directory / FILE_NAME),
            directory / "checkpoints",
        )
        with MetricsWriter(directory) as emit:
            patches = [
                mock.patch.object(owner, name, watch.wrapped(part, getattr(owner, name)))
                for part, places in PARTS.items()
                for owner, name in places
            ]
            for patch in patches:
                patch.start()
            phase.guard = guard
            keep = max(2, guard.keep)
            run_loop(phase, LoopOptions(directory, emit, keep, keep_best=1, save_start=True, on_step=on_step))
            for patch in patches:
                patch.stop()
        newest = max((directory / "checkpoints").iterdir())
        megabytes = sum(path.stat().st_size for path in newest.iterdir()) / 1e6
    _show(watch.seconds, ends, megabytes)


def _show(rows: list[dict[str, float]], ends: list[float], megabytes: float) -> None:
    # A checkpoint is written after its iteration has ended: it is timed with the next one, and so is the last one.
    iteration = statistics.median(end - start for start, end in itertools.pairwise(ends[1:]))
    counted = rows[1:-1]
    means = {part: statistics.mean(row.get(part, 0.0) for row in counted) for part in PARTS}
    total = sum(means.values())
    print(f"iteration: {iteration:.2f} s, checkpoint: {megabytes:.1f} MB")
    for part, seconds in means.items():
        print(f"  {part:22} {1000 * seconds:8.1f} ms  {100 * seconds / iteration:6.2f} %")
    print(f"  {'together':22} {1000 * total:8.1f} ms  {100 * total / iteration:6.2f} %")
    found = {
        "seconds_per_iteration": round(iteration, 2),
        "overhead_percent": round(100 * total / iteration, 2),
        "checkpoint_megabytes": round(megabytes, 1),
        "checkpoint_seconds": round(means["checkpoint"], 3),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
