"""A store in a file, copied as it is while nobody or somebody writes to it."""

import shutil
import sqlite3
from pathlib import Path

from triphase.errors import StoreError


def copy_file(source: Path, target: Path) -> None:
    """Copy an SQLite store to a file that is not there yet.

    Raises:
        StoreError: it cannot be read.
    """
    if not source.with_name(f"{source.name}-wal").exists():  # nobody has it open; opening it would leave files behind
        shutil.copyfile(source, target)
        return
    kept, copy = sqlite3.connect(f"file:{source}?mode=ro", uri=True), sqlite3.connect(target)
    try:
        kept.backup(copy)
    except sqlite3.Error as error:
        raise StoreError(f"{source} cannot be read ({error}); restore it from a copy") from error
    finally:
        kept.close()
        copy.close()
