"""Keeps one server alive as long as the process that started it, and no longer.

    python watchdog.py LOG COMMAND…

Standard input is a pipe whose other end that process holds. However it ends, by kill -9 too, the system closes the
pipe; then the server and all that it started (its process group) are ended: by a signal, and killed ten seconds later.
If the server ends by itself, its group is ended as well, and its exit status is passed on. If this process is killed,
so is the server (on Linux); whoever started this process ends the group, whose number is the only line of the output.
The file is run directly, by any Python: it imports only the standard library.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import FrameType

GRACE_SECONDS = 10.0
_SLICE = 0.2
_PR_SET_PDEATHSIG = 1
"""Linux: the signal that a process gets when the one that started it ends, however it ends."""
_NOT_STARTED = 127
"""The exit status of a shell that finds no such program."""


def keep(log: str, command: list[str]) -> int:
    """Run the command until it ends, or standard input is closed; returns its exit status."""
    asked = _Asked()
    signal.signal(signal.SIGTERM, asked.hear)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends its servers in turn
    system = ctypes.CDLL(None) if sys.platform == "linux" else None

    def end_with_keeper() -> None:
        if system is not None:
            system.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    with open(log, "ab") as output:
        try:
            server = subprocess.Popen(  # noqa: S603 - the command that this process was given
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_keeper,  # safe: this process has one thread
            )
        except OSError as error:  # nobody reads this process's output: its message goes to the log
            output.write(f"{type(error).__name__}: {error}\n".encode(errors="replace"))
            return _NOT_STARTED
    with suppress(OSError):  # nobody reads it any more
        print(server.pid, flush=True)
    while server.poll() is None:
        if asked.to_end or _is_orphan():
            _end(server)
    _signal_group(server.pid, signal.SIGKILL)
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


class _Asked:
    """Whether the end was requested."""

    def __init__(self) -> None:
        self.to_end = False

    def hear(self, number: int, frame: FrameType | None) -> None:
        self.to_end = True


def _is_orphan() -> bool:
    """Whether the other end of standard input is closed; waits a moment for it."""
    readable, _, _ = select.select([0], [], [], _SLICE)
    return bool(readable) and not os.read(0, 1)


def _end(server: "subprocess.Popen[bytes]") -> None:
    _signal_group(server.pid, signal.SIGTERM)
    end = time.monotonic() + GRACE_SECONDS
    while server.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    _signal_group(server.pid, signal.SIGKILL)
    server.wait()


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1], sys.argv[2:]))
