"""How the loop stores the results of a phase of a run."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from triphase.monitoring.metrics import MetricsWriter
from triphase.monitoring.trackers import open_trackers
from triphase.phases.guards import AlarmGuard
from triphase.runs.session import Run
from triphase.runs.stale_results import remove_results
from triphase.training.loop import LoopOptions, MetricsSink


class _Nothing:
    """Discards metrics: rank 0 stores them."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """See MetricsSink."""

    def truncate_after(self, step: int) -> None:
        """See MetricsSink."""


@contextmanager
def kept(
    run: Run, directory: str, title: str, total: int, *, shown: Sequence[str], guard: AlarmGuard | None = None
) -> Iterator[LoopOptions]:
    """The loop options of one phase: a metrics file, a progress bar, and checkpoints as in the settings.

    Ranks other than 0 store and show nothing, and wait at the same steps. A PPO iteration, which has a ``guard``, is
    long: each has a checkpoint, and as many are kept as the guard may go back to.
    """
    if not run.strategy.is_lead:
        yield _options(run, directory, _Nothing(), guard)
        return
    remove_results(run.path)  # they are from before this phase
    folder = run.part(directory)
    trackers = open_trackers(run.settings.trackers, folder, group=run.settings.name, phase=directory)
    with MetricsWriter(folder, trackers=trackers) as metrics:
        done = min(metrics.last_step or 0, total)
        with run.progress.track(title, total, done=done) as track:

            def on_step(found: Mapping[str, float]) -> None:
                track.advance(1, **{name.split("/")[1]: found[name] for name in shown if name in found})

            yield replace(_options(run, directory, metrics, guard), on_step=on_step)


def _options(run: Run, directory: str, metrics: MetricsSink, guard: AlarmGuard | None) -> LoopOptions:
    checkpoints, back = run.settings.checkpoints, 0 if guard is None else guard.keep
    unjudged = (
        1 + run.settings.rollouts.ahead if guard is not None else 1
    )  # a rollout judges the weights that sampled it
    return LoopOptions(
        run.part(directory),
        metrics,
        keep=max(checkpoints.keep, back, unjudged),
        every=checkpoints.every_steps if guard is None else 1,
        keep_best=checkpoints.keep_best,
        save_start=back > 0,
        skipped_in_a_row=run.settings.guards.skipped_in_a_row,
        stop=run.stop,
    )
