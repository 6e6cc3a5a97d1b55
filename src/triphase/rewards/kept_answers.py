"""A judge's replies, cached in a file: no paid request is repeated, wherever a run or a command ends."""

import logging
import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from triphase.errors import RunError
from triphase.records.files import append_json_lines, make_directory, read_json_lines

_KEPT_EVERY_SECONDS = 2.0
_log = logging.getLogger(__name__)


class KeptAnswers:
    """Numbers from a judge, by the hash of the request; only in memory without a file."""

    def __init__(self, file: Path | None, *, remedy: str) -> None:
        self._file = file
        self._known = {} if file is None else _read(file, remedy)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def get(self, key: str) -> float:
        """The reply; NaN if there is none."""
        return self._known.get(key, math.nan)

    def ask(
        self,
        questions: Mapping[str, Callable[[], float]],
        *,
        parallel: int,
        missing: str,
        interrupt: Callable[[], None],
    ) -> None:
        """Request what has no reply yet, ``parallel`` at a time, and cache the replies; NaN means no reply.

        Replies are stored as they arrive. After a failure no request is sent; those in progress are awaited and stored.

        Args:
            missing: the log message for those without a reply, with two placeholders for numbers.
            interrupt: aborts the requests in progress, so that Ctrl-C does not wait for them.

        Raises:
            ServerError: the judge is unreachable, or rejects a request; the other replies are stored.
        """
        asked = {key: question for key, question in questions.items() if key not in self._known}
        if not asked:
            return
        with ThreadPoolExecutor(parallel) as pool:
            failed = threading.Event()  # if the judge is away, the rest is not requested
            under_way = {pool.submit(_unless, failed, question): key for key, question in asked.items()}
            try:
                self._gather(under_way)
            except BaseException as failure:
                failed.set()
                if not isinstance(failure, Exception):
                    interrupt()
                raise
            finally:
                wait(under_way)
                self._keep(_answered(under_way))
        if count := sum(key not in self._known for key in asked):
            _log.warning(missing, count, len(asked))

    def _gather(self, under_way: Mapping[Future[float], str]) -> None:
        """Store replies as they arrive; the first failure ends it."""
        left = set(under_way)
        while left:
            done, left = wait(left, _KEPT_EVERY_SECONDS, FIRST_EXCEPTION)
            for each in done:
                each.result()
            self._keep(_answered({each: under_way[each] for each in done}))

    def _keep(self, answers: Mapping[str, float]) -> None:
        new = {key: answer for key, answer in answers.items() if key not in self._known}
        if self._file is not None and new:
            make_directory(self._file.parent)
            append_json_lines(self._file, [{"key": key, "score": answer} for key, answer in new.items()])
        self._known |= new


def _unless(failed: threading.Event, question: Callable[[], float]) -> float:
    """The result of a request; no request is sent once another one has failed."""
    if failed.is_set():
        return math.nan
    try:
        return question()
    except BaseException:
        failed.set()
        raise


def _answered(questions: Mapping[Future[float], str]) -> dict[str, float]:
    """The replies of those that are done and have one."""
    found = {key: each.result() for each, key in questions.items() if each.done() and each.exception() is None}
    return {key: answer for key, answer in found.items() if not math.isnan(answer)}


def _read(path: Path, remedy: str) -> dict[str, float]:
    try:
        return {str(row["key"]): _number(row["score"]) for row in read_json_lines(path)}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(
            f"{path}: the judge's grades cannot be read ({type(error).__name__}); restore it, or "
            f"remove it to have {remedy} again"
        ) from None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    if not math.isfinite(value):
        raise ValueError
    return float(value)
