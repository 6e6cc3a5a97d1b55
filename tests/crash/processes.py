"""Runs in their own processes, which finish or are killed.

A process is forked from this one after the libraries are loaded, which saves seconds and changes nothing: everything
of the run is made in the child. With ``cold`` it is a new interpreter that is given the command line.
"""

import importlib
import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from tests.crash.file_operations import FileOperations

from triphase.errors import TriphaseError
from triphase.monitoring.progress import SilentProgress
from triphase.settings.schema import RunSettings

MISTAKEN, STOPPED = 2, 130


LIBRARIES = (
    "matplotlib.pyplot",
    "peft",
    "transformers",
    "triphase.runs.evaluation",
    "triphase.runs.labeling",
    "triphase.runs.pipeline",
    "triphase.demo.tiny",
    "triphase.phases.ppo",
    "triphase.phases.reward",
    "triphase.phases.sft",
    "triphase.reports.page",
    "triphase.reports.summary",
)


def load_libraries() -> None:
    """Import all that a run imports, so that a forked child does not."""
    for name in LIBRARIES:
        importlib.import_module(name)


def pipeline(settings: RunSettings, *, report: bool = False) -> None:
    """Every step of `triphase run`, with or without the page at the end, which changes nothing else."""
    from triphase.runs import pipeline as steps
    from triphase.runs.session import prepare

    last = steps.run_report if report else (lambda run: run.path)
    with prepare(settings, SilentProgress()) as run, mock.patch.object(steps, "run_report", last):
        steps.run_all(run)


def start(work: Callable[[], None], log: Path, operations: FileOperations | None = None) -> int:
    """Fork a process that does ``work``; returns its id. A stop is exit code 130, a typed error 2."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setpgid(0, 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        code = _guarded(work, operations)
    finally:
        os._exit(code)


def _guarded(work: Callable[[], None], operations: FileOperations | None) -> int:
    from triphase.training.stopping import Stopped

    try:
        if operations is None:
            work()
        else:
            with operations.installed():
                work()
    except (Stopped, KeyboardInterrupt):
        return STOPPED
    except TriphaseError as error:
        print(f"error: {error}")
        return MISTAKEN
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def wait(child: int) -> int:
    """The exit code of a child; the negative number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Counter:
    """A number that a child raises and this process reads."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    @property
    def value(self) -> int:
        return int.from_bytes(self._memory[:8], "little")

    def take(self, number: int, name: str) -> None:
        """What `FileOperations` calls after each operation."""
        self._memory[:8] = number.to_bytes(8, "little")


def send_after(child: int, counter: Counter, operations: int, seconds: float, number: signal.Signals) -> int:
    """Let it run for so many file operations and then for ``seconds``, send the signal, and return how it ended.

    So the moment is a random one of the run, however fast the machine is just now.
    """
    end: float | None = None
    while end is None or time.monotonic() < end:
        if end is None and counter.value >= operations:
            end = time.monotonic() + seconds
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, number)
    return wait(child)
