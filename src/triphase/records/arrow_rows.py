"""Rows of Arrow files, and of the directories that ``Dataset.save_to_disk`` writes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from triphase.errors import DataError
from triphase.records.lines import RefuseRow, Row

_NEEDS = "Arrow needs pyarrow; run: pip install 'triphase[parquet]'"


def arrow_rows(path: Path, name: str, refused: RefuseRow) -> Iterator[Row]:
    """The rows of one Arrow file, of either form (stream or file). Errors name the row, from 1."""
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise DataError(f"{name}: {_NEEDS}") from None
    number = 0
    try:
        with pyarrow.OSFile(str(path), "rb") as file:
            for batch in _batches(pyarrow.ipc, file):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, name, number, unit="row")
    except (pyarrow.ArrowException, MemoryError, OverflowError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise DataError(f"{name}: row {number + 1}: damaged Arrow file ({reason})") from None


def _batches(ipc: Any, file: Any) -> Iterator[Any]:
    """The batches of a stream, as `datasets` writes them, or of a file with its index at the end."""
    if file.read(6) == b"ARROW1":
        file.seek(0)
        table = ipc.open_file(file)
        for index in range(table.num_record_batches):
            yield table.get_batch(index)
        return
    file.seek(0)
    yield from ipc.open_stream(file)


def saved_rows(path: Path, split: str, name: str) -> Iterator[Row]:
    """The rows of a directory that ``save_to_disk`` wrote; of several splits the one that is named."""
    try:
        from datasets import DatasetDict, load_from_disk
    except ImportError:
        raise DataError(f"{name}: saved data sets need datasets; run: pip install 'triphase[train]'") from None
    try:
        found: Any = load_from_disk(str(path))
    except Exception as error:  # the library raises many kinds of its own
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise DataError(f"{name}: cannot be opened as a saved data set ({type(error).__name__}: {reason})") from None
    if isinstance(found, DatasetDict):
        if split not in found:
            raise DataError(f"{name}: has no split {split!r}; it has {', '.join(map(str, found))}: name one with split")
        found = found[split]
    for number, values in enumerate(found, start=1):
        yield Row(values, name, number, unit="row")
