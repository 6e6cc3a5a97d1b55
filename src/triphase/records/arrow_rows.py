"""Rows of Arrow files, and of the directories that ``Dataset.save_to_disk`` writes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from triphase.errors import DataError, first_line_of
from triphase.records.arrow_batches import rows_at_a_time, rows_of
from triphase.records.arrow_sizes import require_bounded
from triphase.records.lines import RefuseRow, Row, require_usable_columns
from triphase.records.paths import data_file

_NEEDS = "Arrow needs pyarrow; run: pip install 'triphase[parquet]'"
_MAGIC = b"ARROW1"
_START = 8
"""Of the messages of a file, after its magic bytes."""


def arrow_rows(path: Path, name: str, refused: RefuseRow) -> Iterator[Row]:
    """The rows of one Arrow file, of either format (stream or file). Errors name the row, from 1."""
    number = 0
    for batch in _batches(path, name):
        for values in rows_of(batch, rows_at_a_time(_is_nested(batch.schema))):
            number += 1
            yield Row(values, name, number, unit="row")


def _batches(path: Path, name: str) -> Iterator[Any]:
    """The batches of a file, each within limits and valid: its offsets point inside it.

    Raises:
        DataError: one is not.
    """
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise DataError(f"{name}: {_NEEDS}") from None
    rows = 0
    try:
        with pyarrow.memory_map(str(path)) as file:
            begin = _START if file.read(len(_MAGIC)) == _MAGIC else 0
            file.seek(begin)
            count = require_bounded(pyarrow.ipc, file, name)
            if begin and pyarrow.ipc.open_file(file).num_record_batches != count:
                raise DataError(f"{name}: damaged Arrow file (its index does not match its content)")
        with pyarrow.OSFile(str(path), "rb") as file:
            file.seek(begin)  # a file is a stream followed by an index
            stream = pyarrow.ipc.open_stream(file)
            require_usable_columns(stream.schema.names, name)
            for batch in stream:
                batch.validate(full=True)
                yield batch
                rows += batch.num_rows
    except (pyarrow.ArrowException, MemoryError, OverflowError, ValueError) as error:
        reason = first_line_of(error)
        raise DataError(f"{name}: row {rows + 1}: damaged Arrow file ({reason})") from None


def _is_nested(schema: Any) -> bool:
    return any(field.type.num_fields for field in schema)


def saved_rows(path: Path, split: str, name: str) -> Iterator[Row]:
    """The rows of a directory written by ``save_to_disk``; of several splits the one that is named."""
    try:
        from datasets import DatasetDict, load_from_disk
    except ImportError:
        raise DataError(f"{name}: saved data sets need datasets; run: pip install 'triphase[train]'") from None
    _require_sound(path, name)
    try:
        found: Any = load_from_disk(str(path))
    except Exception as error:  # the library raises many types of its own
        reason = first_line_of(error)
        raise DataError(f"{name}: cannot be opened as a saved data set ({type(error).__name__}: {reason})") from None
    if isinstance(found, DatasetDict):
        if split not in found:
            raise DataError(f"{name}: has no split {split!r}; it has {', '.join(map(str, found))}: set one as split")
        found = found[split]
    for number, values in enumerate(found, start=1):
        yield Row(values, name, number, unit="row")


def _require_sound(path: Path, name: str) -> None:
    """Check each file of a saved data set before the library opens it.

    Raises:
        DataError: one is not a regular file, or is an Arrow file that `arrow_rows` would not read.
    """
    for folder, _, files in os.walk(path):
        for file in files:
            place = data_file(str(Path(folder, file)), Path())
            if place.suffix == ".arrow":
                for _ in _batches(place, f"{name}/{file}"):
                    pass
