"""Branches of a run over a grid of settings, sequentially or in parallel, with one table and one page."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from triphase.cli import deferred
from triphase.cli.arguments import Overrides, RunPath, parse_overrides, require_run
from triphase.cli.runs import runs as print_runs
from triphase.errors import SettingsError
from triphase.records.visible import visible
from triphase.reports.contents import gaps_of
from triphase.reports.summary import write_summary
from triphase.reports.sweep_page import write_sweep_page
from triphase.runs.locking import locked
from triphase.runs.sweep_execution import one_after_another, side_by_side
from triphase.runs.sweeping import SweepPoint, note_points, plan_sweep, read_points, trained_in_each
from triphase.settings.loading import load_settings
from triphase.settings.places import absolute
from triphase.training.stopping import Stopped


def sweep(
    path: RunPath,
    /,
    *overrides: Overrides,
    name: Annotated[
        str | None, Parameter(help="Name of the sweep's directory, next to the run; RUN-sweep by default.")
    ] = None,
    parallel: Annotated[
        int, Parameter(help="Number of runs at a time, each in its own process with its share of the cores.")
    ] = 1,
) -> int:
    """Run every combination of values of some settings."""
    require_parallel(parallel)
    varied = parse_overrides(overrides)
    here = absolute(require_run(path))
    directory = here.parent / (name or f"{here.name}-sweep")
    if directory.parent != here.parent or directory.name.startswith("."):
        raise SettingsError(f"--name: {name} is not allowed; it must be a name, without a path")
    points = plan_sweep(path, directory, varied)
    for phase in trained_in_each(path, points):
        _say(
            f"note: {phase} is the same in several of these runs and is trained in each; to share it, stop, and finish "
            f"it first: triphase run {path}"
        )
    note_points(directory, here, points)
    with locked(directory, "another process is working on this sweep: wait for it, or stop it"):
        for point in points:
            if point.is_finished:  # its figures come from files with sums: an edited summary is mended
                write_summary(point.path)
        failures = carry(points, parallel)
        if not any(point.path.is_dir() for point in points):
            print_failures(failures)
            return 1
        page = write_sweep_page(directory, read_points(directory))
    print_runs(directory)
    print_gaps(points)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]page[/bold]    {escape(visible(str(page)))}")
    print_failures(failures)
    return 1 if failures else 0


def print_failures(failures: Mapping[str, str]) -> None:
    """Name the runs that failed, each with its reason."""
    console = Console(highlight=False, soft_wrap=True)
    for run, message in failures.items():
        console.print(f"[bold]failed[/bold]  {escape(visible(f'{run}: {message}'))}")


def print_gaps(points: Sequence[SweepPoint]) -> None:
    """Print what is damaged or missing in finished runs, since the results of all of them are compared."""
    for point in points:
        for gap in gaps_of(point.path) if point.is_finished else ():
            _say(f"note: {point.path.name}: {gap}")


def require_parallel(parallel: int) -> None:
    """Check the number of parallel runs.

    Raises:
        SettingsError: ``parallel`` is not a valid number.
    """
    if parallel < 1:
        raise SettingsError(f"--parallel: {parallel} is not allowed; it must be a whole number above 0")


def carry(points: Sequence[SweepPoint], parallel: int) -> dict[str, str]:
    """Execute runs, ``parallel`` at a time; returns those that fail, with the reason."""
    if parallel > 1:
        return side_by_side(points, parallel, _command, _say)
    try:
        return one_after_another(points, _perform, _say)
    except Stopped:
        raise KeyboardInterrupt from None


def _perform(run: Path) -> None:
    deferred.perform(load_settings(run), ("all",), lambda _: None)


def _command(run: Path, threads: int) -> list[str]:
    return [sys.executable, "-m", "triphase.cli.attended", "run", str(run), "--threads", str(threads)]


def _say(line: str) -> None:
    print(visible(line), file=sys.stderr, flush=True)
