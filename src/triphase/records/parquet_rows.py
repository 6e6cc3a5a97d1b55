"""Rows of a Parquet file, in batches that stay small in memory however much the file unpacks to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from triphase.errors import DataError, first_line_of
from triphase.records.arrow_batches import MOST_BYTES, MOST_RATIO, rows_at_a_time, rows_of
from triphase.records.lines import RefuseRow, Row, require_usable_columns
from triphase.records.paths import format_of

_MOST_VALUES = 100_000
"""Average values per row; more means a list that no record has."""


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
            most = rows_at_a_time(len(texts) < len(file.schema))
        with pyarrow.parquet.ParquetFile(path, read_dictionary=texts) as file:
            for batch in file.iter_batches(batch_size=most):
                for values in rows_of(batch, most):
                    number += 1
                    yield Row(values, name, number, unit="row")
    except (pyarrow.ArrowException, MemoryError, OverflowError) as error:
        reason = first_line_of(error)
        raise DataError(f"{name}: row {number + 1}: damaged Parquet file ({reason})") from None


def _checked_texts(file: Any, name: str) -> list[str]:
    """The columns of text, which are kept dictionary-encoded until a row is read.

    Raises:
        DataError: a duplicate name, or a column unpacks to far more than the file contains.
    """
    require_usable_columns(file.schema_arrow.names, name)
    metadata = file.metadata
    for group in range(metadata.num_row_groups):
        rows = max(1, metadata.row_group(group).num_rows)
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            unpacked, packed = column.total_uncompressed_size, max(1, column.total_compressed_size)
            if unpacked > max(MOST_BYTES, MOST_RATIO * packed) or column.num_values > _MOST_VALUES * rows:
                raise DataError(
                    f"{name}: the column {column.path_in_schema!r} unpacks to {max(unpacked, column.num_values):,} "
                    f"bytes from {packed:,}; this is not plausible for a data set: write its rows as JSON lines"
                )
    return [
        metadata.schema.column(index).path
        for index in range(len(metadata.schema))
        if metadata.schema.column(index).physical_type == "BYTE_ARRAY" and "." not in metadata.schema.column(index).path
    ]
