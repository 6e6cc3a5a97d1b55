"""Executes the runs of a sweep one after the other, or in parallel processes."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from triphase.errors import TriphaseError
from triphase.runs.sweeping import SweepPoint

_LOOK_SECONDS = 0.2
Say = Callable[[str], None]


def one_after_another(points: Sequence[SweepPoint], perform: Callable[[Path], None], say: Say) -> dict[str, str]:
    """Execute every run by ``perform``; returns those that fail, with the reason. Other exceptions end the sweep."""
    failures = dict[str, str]()
    for number, point in enumerate(points, start=1):
        if point.is_finished:
            continue
        say(f"{number} of {len(points)}: {point.path.name}")
        try:
            point.make()
            perform(point.path)
        except TriphaseError as error:
            failures[point.path.name] = str(error)
    return failures


def side_by_side(
    points: Sequence[SweepPoint], parallel: int, command: Callable[[Path, int], Sequence[str]], say: Say
) -> dict[str, str]:
    """Execute every run, ``parallel`` at a time; returns those that fail, with the reason.

    ``command`` builds the command of one run with this many threads, which ends when its standard input does. A run
    that is a branch of another of the sweep waits for that.
    """
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
                say(f"{point.path.name} starts")
                working[point.path] = _begun(command(point.path, threads))
            for path, (process, heard) in list(working.items()):
                if process.poll() is not None:
                    del working[path]
                    if message := _failure(process, heard):
                        failures[path.name] = message
                    say(f"{path.name} {'fails' if message else 'is finished'}")
            time.sleep(_LOOK_SECONDS)
    finally:  # after Ctrl-C they got the signal too, and save their state
        for process, heard in working.values():
            if process.poll() is None and sys.exc_info()[0] is not KeyboardInterrupt:
                process.terminate()
            process.wait()
            heard.close()
    return failures


def _begun(command: Sequence[str]) -> tuple["subprocess.Popen[bytes]", IO[bytes]]:
    heard = tempfile.TemporaryFile()
    process = subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=heard
    )
    return process, heard


def _failure(process: "subprocess.Popen[bytes]", heard: IO[bytes]) -> str | None:
    """Why a process failed; None if it did not."""
    if process.stdin is not None:
        process.stdin.close()
    heard.seek(0)
    lines = heard.read().decode(errors="replace").strip().splitlines()
    heard.close()
    if process.returncode == 0:
        return None
    return lines[-1].removeprefix("error: ") if lines else f"ended with exit code {process.returncode}"
