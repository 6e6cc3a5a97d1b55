"""Guards an external scorer: one that raises, hangs or returns no number becomes one line with a remedy."""

import math
from collections.abc import Callable

from triphase.errors import TrainingError
from triphase.records.bounded_calls import NoAnswer, Worker

Score = Callable[[str, str, bool], float]
SECONDS = 60.0
_REMEDY = "fix the scorer, then run the same command again; finished work is kept"


class CheckedScore:
    """Calls ``score`` in a thread of its own and waits for it at most ``seconds``."""

    def __init__(self, score: Score, name: str, *, seconds: float = SECONDS) -> None:
        self._name = name
        self._seconds = seconds
        self._worker = Worker(score, seconds=seconds, name=f"scorer {name}")

    def __call__(self, prompt: str, response: str, finished: bool) -> float:
        """The score of one response.

        Raises:
            TrainingError: it raised, did not return in time, or returned something other than a finite number.
        """
        about = f" for the response {response[:40]!r} to {prompt[:40]!r}; {_REMEDY}"
        try:
            found, error = self._worker.call(prompt, response, finished)
        except NoAnswer:
            raise TrainingError(f"the scorer {self._name} did not respond within {self._seconds:g} s" + about) from None
        if error is not None:
            raise TrainingError(f"the scorer {self._name} failed ({type(error).__name__}: {error})" + about) from error
        if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
            raise TrainingError(f"the scorer {self._name} returned {found!r}; a score must be a finite number" + about)
        return float(found)
