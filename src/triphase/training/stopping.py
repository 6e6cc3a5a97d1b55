"""A user's request to stop a run: the step in progress ends, and the state is saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from triphase.records.interruption import stoppable


class Stopped(Exception):
    """The user requested a stop; the state is saved and the same command continues."""


class StopRequest:
    """Remembers one Ctrl-C or SIGTERM, so that a step can end; a second one stops at once."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Handle signals inside the block. Python allows only the main thread to do so; in others this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with stoppable(lambda: self.asked):
                yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
