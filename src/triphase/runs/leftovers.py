"""A run that is refused before it has done anything leaves no directory behind."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from triphase.errors import TriphaseError, WaitingForPeople
from triphase.monitoring.log import FILE_NAME as LOG
from triphase.monitoring.sums import FILE_NAME as SUMS
from triphase.records.files import remove_directory
from triphase.settings.loading import RUN_CONFIG
from triphase.training.artifacts import TAKEN

_NOTES = {".lock", RUN_CONFIG, LOG, SUMS, TAKEN, "timings.json"}
"""Files of a run that are written before there is anything worth keeping."""
_RECORDS = "data"
"""Records passed by a program, which still has them."""


def not_there(directory: Path) -> list[Path]:
    """The directory and those above it that do not exist yet, the innermost first."""
    return [path for path in (directory, *directory.parents) if not os.path.lexists(path)]


@contextmanager
def removed_if_refused(made: list[Path]) -> Iterator[None]:
    """Remove the directories created for the block, if it is refused and leaves nothing but notes in them."""
    try:
        yield
    except WaitingForPeople:
        raise  # they work on what is there
    except TriphaseError:
        if made and all(_is_note(path, made[0]) for path in made[0].rglob("*")):
            with suppress(OSError, TriphaseError):  # the error of the block is the one to report
                remove_directory(made[0])
                for path in made[1:]:
                    path.rmdir()  # not one that has other contents by now
        raise


def _is_note(path: Path, run: Path) -> bool:
    return path.is_dir() or path.name in _NOTES or path.relative_to(run).parts[0] == _RECORDS
