"""How the loop keeps what a phase of a run does."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from triphase.monitoring.metrics import MetricsWriter
from triphase.runs.session import Run
from triphase.runs.stale import remove_results
from triphase.training.loop import LoopOptions


@contextmanager
def kept(run: Run, directory: str, title: str, total: int, *, shown: Sequence[str]) -> Iterator[LoopOptions]:
    """How the loop keeps one phase: a metrics file, a progress bar, and checkpoints as the settings say."""
    checkpoints = run.settings.checkpoints
    remove_results(run.path)  # they were those of before this phase
    with MetricsWriter(run.part(directory)) as metrics:
        done = min(metrics.last_step or 0, total)
        with run.progress.track(title, total, done=done) as track:

            def on_step(found: Mapping[str, float]) -> None:
                track.advance(1, **{name.split("/")[1]: found[name] for name in shown if name in found})

            yield LoopOptions(
                run.part(directory),
                metrics,
                keep=checkpoints.keep,
                every=checkpoints.every_steps,
                keep_best=checkpoints.keep_best,
                skipped_in_a_row=run.settings.guards.skipped_in_a_row,
                stop=run.stop,
                on_step=on_step,
            )
