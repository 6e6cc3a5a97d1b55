"""Long work of a run that is shown while it goes on, and that ends early if the user requests it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from triphase.runs.session import Run


@contextmanager
def counting(run: Run, description: str, total: int, *, unit: str) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of units that have just been done, for work that is repeated on resume.

    Raises:
        Stopped: by that function, if the user requested it.
    """
    with run.progress.track(description, total, unit=unit) as track:

        def finished(count: int) -> None:
            track.advance(count)
            run.raise_if_stop_requested()

        yield finished
