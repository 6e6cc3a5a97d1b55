"""Standard output and error that never end the work: a closed pipe, a full disk, or an unencodable character.

What cannot be written is dropped and recorded; the exit code reports it. A run whose terminal was closed continues.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_log = logging.getLogger(__name__)


class LastingStream:
    """A text stream whose writes do not raise.

    Attributes:
        failure: why it cannot be written any more; None while it can.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failure: Exception | None = None

    def write(self, text: str) -> int:
        """Write, or drop what can no longer be written."""
        if self.failure is None:
            try:
                self._stream.write(text)
            except (OSError, ValueError) as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Flush, if the stream is still open."""
        if self.failure is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: Exception) -> None:
        self.failure = error
        # The rest of the buffer would be written again, and fail again, when the process ends.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def lasting_streams() -> Iterator[LastingStream]:
    """Replace standard output and error by such streams while the block lasts; returns the output.

    A character that the terminal's encoding lacks is written as an escape. A closed stream drops everything. A terminal
    of width 0, which some containers report, is treated as one of unknown width.
    """
    if os.environ.get("COLUMNS", "").strip("0") == "":
        os.environ.pop("COLUMNS", None)  # Rich would print nothing into it
    before = sys.stdin, sys.stdout, sys.stderr
    with open(os.devnull, "r+", encoding="utf-8") as nowhere:
        output, errors = (LastingStream(stream or nowhere) for stream in before[1:])
        if before[1] is None:
            output.failure = OSError("it is closed")
        for stream in before[1:]:
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        sys.stdin, sys.stdout, sys.stderr = before[0] or nowhere, output, errors
        try:
            yield output
        finally:
            output.flush()
            errors.flush()
            sys.stdin, sys.stdout, sys.stderr = before


@contextmanager
def outlasting_terminal() -> Iterator[None]:
    """Let the block continue when its terminal is closed (SIGHUP). Under ``nohup`` it does so already."""
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGHUP)
    if not in_main or before is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGHUP, _terminal_is_gone)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _terminal_is_gone(number: int, frame: FrameType | None) -> None:
    _log.warning("the terminal was closed; the run continues. To stop it: kill %d", os.getpid())
