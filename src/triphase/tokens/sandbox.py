"""Chat templates that need a guard, in a separate process that can be killed.

A watchdog thread cannot end one long operation (``9 ** 9 ** 9``, a format width of a billion), and no list of such
operations is complete. The process starts with the first template that needs it, is reused for the next, has a memory
limit, and ends with this one.
"""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from triphase.errors import ModelError

_MEMORY = 1 << 30
_START_SECONDS = 300.0


class Ended(Exception):
    """The process was ended: it exceeded its time or memory limit."""


class Sandbox:
    """One process, used by one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._rest = b""

    def ask(self, question: dict[str, Any], seconds: float) -> dict[str, str]:
        """The response of `sandbox_process` to a request.

        Raises:
            Ended: there was none within ``seconds``, or the process died of it.
            ModelError: no process can be started.
        """
        with self._lock:
            process = self._started()
            assert process.stdin is not None  # noqa: S101 - opened with the process
            try:
                process.stdin.write(json.dumps(question).encode() + b"\n")
                process.stdin.flush()
                return self._line(process, seconds)
            except (OSError, Ended):
                self._end()
                raise Ended from None
            except BaseException:  # Ctrl-C between request and response: the next request must not get this response
                self._end()
                raise

    def close(self) -> None:
        """End the process, if this process started it."""
        with self._lock:
            self._end()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        self._end()
        command = [sys.executable, "-P", "-m", "triphase.tokens.sandbox_process", str(_MEMORY)]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            self._owner, self._rest = os.getpid(), b""
            self._line(self._process, _START_SECONDS)
        except (OSError, Ended) as error:
            self._end()
            raise ModelError(f"the process that renders chat templates cannot be started: {error}") from error
        return self._process

    def _line(self, process: "subprocess.Popen[bytes]", seconds: float) -> dict[str, str]:
        assert process.stdout is not None  # noqa: S101 - opened with the process
        deadline, parts = time.monotonic() + seconds, [self._rest]
        while b"\n" not in parts[-1]:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                raise Ended(f"no answer within {seconds:g} s")
            part = os.read(process.stdout.fileno(), 1 << 20)
            if not part:
                raise Ended("it ended by itself")
            parts.append(part)
        line, _, self._rest = b"".join(parts).partition(b"\n")
        answer: dict[str, str] = json.loads(line)
        return answer

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


sandbox = Sandbox()
atexit.register(sandbox.close)
