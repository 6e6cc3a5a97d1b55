"""What a judge answered, kept in a file: what was paid for is asked for once, wherever a run or a command ends."""

import logging
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from triphase.errors import RunError
from triphase.records.files import append_json_lines, make_directory, read_json_lines

_log = logging.getLogger(__name__)


class KeptAnswers:
    """Numbers that a judge answered, by the hash of the question; in memory alone where there is no file."""

    def __init__(self, file: Path | None, *, remedy: str) -> None:
        self._file = file
        self._known = {} if file is None else _read(file, remedy)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def get(self, key: str) -> float:
        """The answer; NaN where there is none."""
        return self._known.get(key, math.nan)

    def ask(self, questions: Mapping[str, Callable[[], float]], *, parallel: int, missing: str) -> None:
        """Ask what has no answer yet, ``parallel`` at a time, and keep what is answered; NaN stands for no answer.

        ``missing`` is what the log says of those, with two places for numbers.

        Raises:
            ServerError: the judge is away, or refuses a question; the other answers are kept.
        """
        asked = {key: question for key, question in questions.items() if key not in self._known}
        if not asked:
            return
        with ThreadPoolExecutor(parallel) as pool:
            under_way = {key: pool.submit(question) for key, question in asked.items()}
        done = {key: each.result() for key, each in under_way.items() if each.exception() is None}
        self._keep({key: answer for key, answer in done.items() if not math.isnan(answer)})
        for each in under_way.values():
            each.result()  # what was paid for is kept; now the first failure ends the run
        if count := sum(map(math.isnan, done.values())):
            _log.warning(missing, count, len(done))

    def _keep(self, answers: Mapping[str, float]) -> None:
        self._known |= answers
        if self._file is not None and answers:
            make_directory(self._file.parent)
            append_json_lines(self._file, [{"key": key, "score": answer} for key, answer in answers.items()])


def _read(path: Path, remedy: str) -> dict[str, float]:
    try:
        return {str(row["key"]): float(row["score"]) for row in read_json_lines(path)}
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path}: the judge's grades cannot be read ({type(error).__name__}); restore it, or remove it to have "
            f"{remedy} again"
        ) from None
