"""Whether the user has requested a stop, for waits deep inside of libraries, to which no callback can be passed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Stop:
    now: Callable[[], bool] = staticmethod(lambda: False)


@contextmanager
def stoppable(asked: Callable[[], bool]) -> Iterator[None]:
    """Inside the block ``asked`` is the check, in every thread."""
    before, _Stop.now = _Stop.now, staticmethod(asked)
    try:
        yield
    finally:
        _Stop.now = before


def is_stop_asked() -> bool:
    """Whether the user has requested a stop; always False outside of `stoppable`."""
    return _Stop.now()
