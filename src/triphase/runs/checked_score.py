"""A scorer from outside, kept in check: one that raises, hangs or returns no number becomes one line with a remedy."""

import math
import queue
import threading
from collections.abc import Callable

from triphase.errors import TrainingError

Score = Callable[[str, str, bool], float]
SECONDS = 60.0
_REMEDY = "mend the scorer, then give the same command again; what is finished is kept"


class CheckedScore:
    """Calls ``score`` in a thread of its own and waits for it at most ``seconds``."""

    def __init__(self, score: Score, name: str, *, seconds: float = SECONDS) -> None:
        self._score = score
        self._name = name
        self._seconds = seconds
        self._asked: queue.SimpleQueue[tuple[str, str, bool]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[float | Exception] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __call__(self, prompt: str, response: str, finished: bool) -> float:
        """The score of one response.

        Raises:
            TrainingError: it raised, did not answer in time, or answered with something that is no finite number.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, daemon=True, name=f"scorer {self._name}")
            self._thread.start()
        self._asked.put((prompt, response, finished))
        about = f", asked about the response {response[:40]!r} to {prompt[:40]!r}; {_REMEDY}"
        try:
            found = self._answers.get(timeout=self._seconds)
        except queue.Empty:
            raise TrainingError(f"the scorer {self._name} did not answer within {self._seconds:g} s" + about) from None
        if isinstance(found, Exception):
            raise TrainingError(f"the scorer {self._name} failed ({type(found).__name__}: {found})" + about) from found
        if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
            raise TrainingError(f"the scorer {self._name} answered {found!r}, a score is a finite number" + about)
        return float(found)

    def _serve(self) -> None:
        while True:
            asked = self._asked.get()
            try:
                self._answers.put(self._score(*asked))
            except Exception as error:
                self._answers.put(error)
