"""Branches of a run over a grid of settings, one after the other or side by side, with one table and one page."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from triphase.cli import deferred
from triphase.cli.arguments import Overrides, RunPath, parse_overrides, require_run
from triphase.cli.runs import runs as print_runs
from triphase.errors import SettingsError, TriphaseError
from triphase.records.visible import visible
from triphase.reports.sweep_page import write_sweep_page
from triphase.runs.locking import locked
from triphase.runs.sweeping import Point, note_points, plan_sweep, read_points
from triphase.settings.loading import load_settings
from triphase.training.stopping import Stopped

_LOOK_SECONDS = 0.2


def sweep(
    path: RunPath,
    /,
    *overrides: Overrides,
    name: Annotated[str | None, Parameter(help="Name of the sweep's directory, beside the run; RUN-sweep.")] = None,
    parallel: Annotated[int, Parameter(help="Runs side by side, each in a process and with its share of cores.")] = 1,
) -> int:
    """Run the branches of a run for every combination of the values that settings are given."""
    if parallel < 1:
        raise SettingsError(f"--parallel: {parallel} is not allowed; it must be a whole number above 0")
    varied = parse_overrides(overrides)
    here = require_run(path).absolute()
    directory = here.parent / (name or f"{here.name}-sweep")
    if directory.parent != here.parent or directory.name.startswith("."):
        raise SettingsError(f"--name: {name} is not allowed; it must be a name, without a path")
    points = note_points(directory, here, plan_sweep(path, directory, varied))
    with locked(directory, "another call works on this sweep: wait for it, or stop it"):
        failures = _carry(points, parallel)
        page = write_sweep_page(directory, read_points(directory))
    print_runs(directory)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]page[/bold]    {escape(visible(str(page)))}")
    for run, message in failures.items():
        console.print(f"[bold]failed[/bold]  {escape(visible(f'{run}: {message}'))}")
    return 1 if failures else 0


def _carry(points: Sequence[Point], parallel: int) -> dict[str, str]:
    """Carry every run to its end; those that fail, with why."""
    failures, total = dict[str, str](), len(points)
    if parallel > 1:
        return _side_by_side(points, parallel)
    for number, point in enumerate(points, start=1):
        if point.is_finished:
            continue
        _say(f"{number} of {total}: {point.path.name}")
        try:
            point.make()
            deferred.perform(load_settings(point.path), ("all",), lambda _: None)
        except Stopped:
            raise KeyboardInterrupt from None
        except TriphaseError as error:
            failures[point.path.name] = str(error)
    return failures


def _side_by_side(points: Sequence[Point], parallel: int) -> dict[str, str]:
    threads = max(1, len(os.sched_getaffinity(0)) // parallel)
    waiting, failures = [point for point in points if not point.is_finished], dict[str, str]()
    working: dict[Path, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
    try:
        while waiting or working:
            unfinished = {*working, *(point.path for point in waiting)}
            ready = [point for point in waiting if point.source not in unfinished][: parallel - len(working)]
            for point in ready:
                waiting.remove(point)
                try:
                    point.make()
                except TriphaseError as error:
                    failures[point.path.name] = str(error)
                    continue
                _say(f"{point.path.name} begins")
                working[point.path] = _begin(point.path, threads)
            for path, (process, heard) in list(working.items()):
                if process.poll() is not None:
                    del working[path]
                    if message := _ending(process, heard):
                        failures[path.name] = message
                    _say(f"{path.name} {'fails' if message else 'is finished'}")
            time.sleep(_LOOK_SECONDS)
    finally:  # after Ctrl-C they have been told too, and save
        for process, heard in working.values():
            if process.poll() is None and sys.exc_info()[0] is not KeyboardInterrupt:
                process.terminate()
            process.wait()
            heard.close()
    return failures


def _begin(run: Path, threads: int) -> tuple["subprocess.Popen[bytes]", IO[bytes]]:
    heard = tempfile.TemporaryFile()
    command = [sys.executable, "-m", "triphase.cli.attended", str(run), str(threads)]
    process = subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=heard
    )
    return process, heard


def _ending(process: "subprocess.Popen[bytes]", heard: IO[bytes]) -> str | None:
    """Why a process failed; None where it did not."""
    if process.stdin is not None:
        process.stdin.close()
    heard.seek(0)
    lines = heard.read().decode(errors="replace").strip().splitlines()
    heard.close()
    if process.returncode == 0:
        return None
    return lines[-1].removeprefix("error: ") if lines else f"ended with exit code {process.returncode}"


def _say(line: str) -> None:
    print(visible(line), file=sys.stderr, flush=True)
