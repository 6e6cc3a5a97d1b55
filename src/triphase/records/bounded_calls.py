"""Calls into third-party code, in a separate thread: with a time-out, and interruptible by a request to stop."""

import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

_POLL_SECONDS = 0.1


Answered = tuple[Any, BaseException | None]
"""The return value of a call, and the exception that it raised."""
_Asked = tuple[tuple[Any, ...], dict[str, Any], "queue.SimpleQueue[Answered]"]


class NoAnswer(Exception):
    """A call did not return in time, or its process ended."""


class Worker:
    """Calls ``function`` in one thread, always the same."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        seconds: float,
        check: Callable[[], None] = lambda: None,
        name: str = "worker",
    ) -> None:
        """``check`` is called a few times a second during a call, and may raise to end the wait."""
        self._function = function
        self._seconds = seconds
        self._check = check
        self._name = name
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, *values: Any, **named: Any) -> Answered:
        """The function's return value, or its exception.

        Raises:
            NoAnswer: it did not return in time; its thread is abandoned.
        """
        if self._thread is None:
            # The thread has no reference to this object, so that it ends with it even if nobody closes it.
            serving = (self._asked, self._function)
            self._thread = threading.Thread(target=_serve, args=serving, daemon=True, name=self._name)
            self._thread.start()
            weakref.finalize(self, self._asked.put, None)
        answers: queue.SimpleQueue[Answered] = (
            queue.SimpleQueue()
        )  # a late result is not taken for that of a later call
        self._asked.put((values, named, answers))
        end = time.monotonic() + self._seconds
        while True:
            self._check()
            try:
                return answers.get(timeout=min(_POLL_SECONDS, max(0.0, end - time.monotonic())))
            except queue.Empty:
                if time.monotonic() >= end:
                    raise NoAnswer(f"did not return within {self._seconds:g} s") from None

    def close(self) -> None:
        """Let the thread end once it is idle."""
        self._asked.put(None)


def _serve(asked: "queue.SimpleQueue[_Asked | None]", function: Callable[..., Any]) -> None:
    while (one := asked.get()) is not None:
        values, named, answers = one
        try:
            answers.put((function(*values, **named), None))
        except BaseException as error:  # sys.exit in it ends neither the thread nor the run
            answers.put((None, error))
        del one, values, named, answers  # the arguments are not kept until the next call
