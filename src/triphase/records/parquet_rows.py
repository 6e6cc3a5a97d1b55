"""Rows of a Parquet file, in batches that stay small in memory whatever the file unpacks to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from triphase.errors import DataError
from triphase.records.lines import RefuseRow, Row
from triphase.records.paths import format_of

_ROWS = 256
_NESTED_ROWS = 32
_MOST_BYTES = 1 << 26
"""Of a column of one row group whose pages unpack to more than ``_MOST_RATIO`` times their size, and of one batch."""
_MOST_RATIO = 200
_MOST_VALUES = 100_000
"""Values of one row on average; more are a list that no record has."""


class Unreadable:
    """A cell that Python has no value for: a date beyond the year 9999, text that is not UTF-8."""


def parquet_rows(path: Path, name: str, refused: RefuseRow) -> Iterator[Row]:
    """The rows of every row group. Parquet has no lines: errors name the row, from 1."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{name}: Parquet needs pyarrow; run: pip install 'triphase[parquet]'") from None
    if format_of(path) != path.suffix.lower():
        raise DataError(f"{name}: Parquet is compressed inside; unpack the .gz")
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            texts = _checked_texts(file, name)
            nested = len(texts) < len(file.schema)
        with pyarrow.parquet.ParquetFile(path, read_dictionary=texts) as file:
            for batch in file.iter_batches(batch_size=_NESTED_ROWS if nested else _ROWS):
                for values in _records(batch):
                    number += 1
                    yield Row(values, name, number, unit="row")
    except (pyarrow.ArrowException, MemoryError, OverflowError) as error:
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise DataError(f"{name}: row {number + 1}: damaged Parquet file ({reason})") from None


def _checked_texts(file: Any, name: str) -> list[str]:
    """The columns of text, which are kept as their distinct values until a row is taken.

    Raises:
        DataError: a name stands twice, or a column unpacks to far more than the file holds.
    """
    names = file.schema_arrow.names
    twice = [column for column in names if names.count(column) > 1]
    if twice:
        raise DataError(f"{name}: the column {twice[0]!r} is there twice; rename or remove one")
    metadata = file.metadata
    for group in range(metadata.num_row_groups):
        rows = max(1, metadata.row_group(group).num_rows)
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            unpacked, packed = column.total_uncompressed_size, max(1, column.total_compressed_size)
            if unpacked > max(_MOST_BYTES, _MOST_RATIO * packed) or column.num_values > _MOST_VALUES * rows:
                raise DataError(
                    f"{name}: the column {column.path_in_schema!r} unpacks to {max(unpacked, column.num_values):,} "
                    f"bytes from {packed:,}; no data set is like that: write the file again"
                )
    return [
        metadata.schema.column(index).path
        for index in range(len(metadata.schema))
        if metadata.schema.column(index).physical_type == "BYTE_ARRAY" and "." not in metadata.schema.column(index).path
    ]


def _records(batch: Any) -> Iterator[dict[str, Any]]:
    """The rows of a batch as Python values; row by row where many copies of a long text would come at once."""
    longest = sum(_dictionary_bytes(column) for column in batch.columns)
    size = max(1, min(batch.num_rows, _MOST_BYTES // max(1, longest)))
    for start in range(0, batch.num_rows, size):
        columns = [_values(column.slice(start, size)) for column in batch.columns]
        for cells in zip(*columns, strict=True):
            yield dict(zip(batch.schema.names, cells, strict=True))


def _dictionary_bytes(column: Any) -> int:
    dictionary = getattr(column, "dictionary", None)
    return 0 if dictionary is None else int(dictionary.nbytes)


def _values(column: Any) -> list[Any]:
    try:
        found: list[Any] = column.to_pylist()
    except (ValueError, OverflowError, KeyError, NotImplementedError):
        return [_value(cell) for cell in column]
    return found


def _value(cell: Any) -> Any:
    try:
        return cell.as_py()
    except (ValueError, OverflowError, KeyError, NotImplementedError):
        return Unreadable()
