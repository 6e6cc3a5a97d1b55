"""Copies a store in a file unchanged, even while another process writes to it."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from triphase.errors import StoreError


def copy_file(source: Path, target: Path) -> None:
    """Copy an SQLite store to a file that does not exist yet.

    Raises:
        StoreError: it cannot be read.
    """
    if not source.with_name(f"{source.name}-wal").exists():  # nobody has it open; opening it would leave files behind
        shutil.copyfile(source, target)
        return
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as kept,
            closing(sqlite3.connect(target)) as copy,
        ):
            kept.backup(copy)
    except sqlite3.Error as error:
        raise StoreError(f"{source} cannot be read ({error}); restore it from a copy") from error
