"""Whether a person has asked to stop, for waits deep inside of libraries, which nobody can pass a question to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Stop:
    now: Callable[[], bool] = staticmethod(lambda: False)


@contextmanager
def stoppable(asked: Callable[[], bool]) -> Iterator[None]:
    """Inside the block ``asked`` says it, in every thread."""
    before, _Stop.now = _Stop.now, staticmethod(asked)
    try:
        yield
    finally:
        _Stop.now = before


def is_stop_asked() -> bool:
    """Whether a person has asked to stop; nobody has outside of `stoppable`."""
    return _Stop.now()
