"""log.jsonl: the events of a run, one JSON object per line, and the same as readable lines on the terminal.

A line has ``time`` (UTC), ``level``, ``source`` and ``message``; an error that is a defect has its ``traceback``.
Values of environment variables that are named like secrets are redacted. A log that cannot be written stops nothing.
"""

import datetime
import errno
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from triphase.errors import RunError
from triphase.records.files import unshare
from triphase.records.visible import visible, visible_json

FILE_NAME = "log.jsonl"
QUIET = {"quiet": True}
"""``extra`` of a record that goes only to the file, because the user sees it in another way."""
NOTE = {"shown_as": "note"}
"""``extra`` of a record that the user sees, although nothing is wrong."""
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY", re.IGNORECASE)
_SHORTEST = 6
_PASSWORD_IN_URL = re.compile(r"(://[^\s/:@]*):[^\s/]+@")


def without_secrets(text: str) -> str:
    """``text`` without passwords in URLs and the values of environment variables that are named like secrets."""
    text = _PASSWORD_IN_URL.sub(r"\1:***@", text)
    found = {value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= _SHORTEST}
    for value in sorted(found, key=len, reverse=True):
        text = text.replace(value, "***")
    return text


class RunLog(logging.Handler):
    """Appends to a run's log, and shows warnings and errors."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._path = path
        self._say = say
        self._broken = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        message = without_secrets(record.getMessage())
        line = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": _level(record),
            "source": record.name.removeprefix("triphase."),
            "message": message,
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["traceback"] = without_secrets("".join(traceback.format_exception(record.exc_info[1])))
        if _is_shown(record):
            self._say(f"{line['level']}: {message}")
        self._write(visible_json(line) + "\n")

    def _write(self, line: str) -> None:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
            try:
                _append(descriptor, line.encode(errors="backslashreplace"))
            finally:
                os.close(descriptor)
            self._broken = False
        except OSError as error:
            if not self._broken:
                self._say(f"warning: {self._path} cannot be written ({error.strerror}); the run continues without it")
            self._broken = True


class _Shown(logging.Handler):
    """Shows on standard error what no run logs, with its level as in a run."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record, unless the log of a run shows it."""
        logged = any(isinstance(each, RunLog) for each in logging.getLogger("triphase").handlers)
        if _is_shown(record) and not logged:
            print(visible(f"{_level(record)}: {without_secrets(record.getMessage())}"), file=sys.stderr, flush=True)


def _level(record: logging.LogRecord) -> str:
    return getattr(record, "shown_as", record.levelname.lower())


def _is_shown(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING and not getattr(record, "quiet", False)


@contextmanager
def shown_log() -> Iterator[None]:
    """Show what Triphase logs outside of runs while the block lasts."""
    logger, handler = logging.getLogger("triphase"), _Shown()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _append(descriptor: int, line: bytes) -> None:
    """Write a line whole, or nothing of it: a disk that is nearly full accepts a part, without an error."""
    size = os.fstat(descriptor).st_size
    if os.write(descriptor, line) < len(line):
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def run_log(directory: Path, say: Callable[[str], None]) -> Iterator[logging.Logger]:
    """Send what Triphase logs to ``directory``/log.jsonl while the block lasts."""
    logger = logging.getLogger("triphase")
    with suppress(RunError, OSError):  # a failure is reported with the first line
        unshare(directory / FILE_NAME)
    handler, level, propagate = RunLog(directory / FILE_NAME, say), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
