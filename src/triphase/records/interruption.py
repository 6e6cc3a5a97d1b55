"""Whether a person has asked to stop, for waits deep inside of libraries, which nobody can pass a question to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Asked:
    now: Callable[[], bool] = staticmethod(lambda: False)


@contextmanager
def stoppable(asked: Callable[[], bool]) -> Iterator[None]:
    """Inside the block ``asked`` says it, in every thread."""
    before, _Asked.now = _Asked.now, staticmethod(asked)
    try:
        yield
    finally:
        _Asked.now = before


def is_stop_asked() -> bool:
    """Whether a person has asked to stop; nobody has outside of `stoppable`."""
    return _Asked.now()
