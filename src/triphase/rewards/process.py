"""A separate process for a scoring function: one that hangs, prints or exits cannot affect the run.

One process serves all scorers of a run whose functions are in the same file or module, so that these open their
resources once. It ends with this process; what it prints goes to the run's log.
"""

import atexit
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from triphase.errors import SettingsError
from triphase.records.bounded_calls import NoAnswer
from triphase.records.visible import visible
from triphase.rewards.importing import parts_of, source_of

_POLL_SECONDS = 0.1
_IMPORT_SECONDS = 60.0
"""Minimum time-out for importing a function and its dependencies."""
_END_SECONDS = 5.0
_LONGEST_ANSWER = 1 << 28
_LOGGED_LINES, _LOGGED_SIGNS = 200, 500
_log = logging.getLogger(__name__)
_processes: "dict[tuple[Any, ...], FunctionProcess]" = {}


def process_of(function: str) -> "FunctionProcess":
    """The process for a function's file or module, in its current version."""
    source = source_of(function)
    state = None if source is None else (source.stat().st_mtime_ns, source.stat().st_size)
    key = (parts_of(function)[0], state, tuple(sys.path), os.getcwd(), os.getpid())
    if key not in _processes:
        _processes[key] = FunctionProcess(key[0])
    return _processes[key]


class FunctionProcess:
    """Calls the functions of one file or module; started at the first request, and again after it was ended."""

    def __init__(self, name: str) -> None:
        """``name`` is its name in the log."""
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None
        self._opened: list[dict[str, Any]] = []
        self._first = self._rest = b""
        self._printed: deque[str] = deque(maxlen=1)

    def open(self, function: dict[str, Any], seconds: float, check: Callable[[], None]) -> None:
        """Import a function (its name, options, and setting for messages), if that has not been done.

        Raises:
            SettingsError: it cannot be imported.
            NoAnswer: importing does not end.
        """
        if self._process is None or self._process.poll() is not None:
            self._begin()
        if function in self._opened:
            return
        found = self._exchange(function, max(_IMPORT_SECONDS, seconds), check, "could not be imported")
        if "refused" in found:
            self.close()  # a failed import leaves nothing behind
            raise SettingsError(found["refused"])
        self._opened.append(function)

    def ask(
        self, function: dict[str, Any], question: dict[str, Any], seconds: float, check: Callable[[], None]
    ) -> dict[str, Any]:
        """The response of `function_process`; ``check`` is called a few times a second, and may raise to end the wait.

        Raises:
            SettingsError, NoAnswer: as `open`; or there was no response within ``seconds``, or the process ended.
        """
        self.open(function, seconds, check)
        return self._exchange({**function, **question}, seconds, check, "did not return")

    def _begin(self) -> None:
        self.close()
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "triphase.rewards.function_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},  # sets have the same order at every start
            start_new_session=True,  # Ctrl-C is for the run
        )
        self._rest, self._opened = b"", []
        self._first = json.dumps({"path": sys.path}).encode() + b"\n"
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None  # noqa: S101 - opened with the process
            os.set_blocking(pipe.fileno(), False)
        threading.Thread(target=self._log_prints, args=(self._process.stderr,), daemon=True).start()

    def close(self) -> None:
        """End the process, and all processes that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _exchange(
        self, question: dict[str, Any], seconds: float, check: Callable[[], None], failure: str
    ) -> dict[str, Any]:
        try:
            first, self._first = self._first, b""
            return self._answer(first + json.dumps(question).encode() + b"\n", seconds, check, failure)
        except BaseException:  # also Ctrl-C: the next request must not get the response to this one
            self.close()
            raise

    def _answer(self, left: bytes, seconds: float, check: Callable[[], None], failure: str) -> dict[str, Any]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None  # noqa: S101
        deadline, parts, size = time.monotonic() + seconds, [self._rest], len(self._rest)
        while b"\n" not in parts[-1]:
            check()
            wait = min(_POLL_SECONDS, max(0.0, deadline - time.monotonic()))
            readable, writable, _ = select.select([process.stdout], [process.stdin] if left else [], [], wait)
            if writable:
                with suppress(BrokenPipeError):
                    left = left[os.write(process.stdin.fileno(), left[: 1 << 16]) :]
            if readable:
                parts.append(os.read(process.stdout.fileno(), 1 << 20))
                size += len(parts[-1])
                if not parts[-1]:
                    raise NoAnswer(self._ending(process))
                if size > _LONGEST_ANSWER:
                    raise NoAnswer("returned more than 256 MiB for one batch")
            elif time.monotonic() >= deadline:
                raise NoAnswer(f"{failure} within {seconds:g} s")
        line, _, self._rest = b"".join(parts).partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ending(self, process: "subprocess.Popen[bytes]") -> str:
        try:
            code = process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:  # it closed the pipe only; `_exchange` ends the process
            return "closed the pipe on which its scores go to the run"
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        said = f"; its last output: {self._printed[0]}" if self._printed else ""
        return f"terminated its process {how}{said}"

    def _log_prints(self, printed: IO[bytes]) -> None:
        name, count = self._name, 0
        for line in iter(lambda: printed.readline(1 << 16), b""):
            text = visible(line.decode(errors="replace").rstrip())[:_LOGGED_SIGNS]
            if not text:
                continue
            self._printed.append(text)
            count += 1
            if count <= _LOGGED_LINES:
                _log.info("%s printed: %s", name, text)
            if count == _LOGGED_LINES:
                _log.info("%s has printed %d lines; further ones are not logged", name, count)
        printed.close()


def _close_all() -> None:
    for (*_, owner), process in _processes.items():
        if owner == os.getpid():
            process.close()


atexit.register(_close_all)
