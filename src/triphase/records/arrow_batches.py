"""Converts Arrow batches, from Parquet and Arrow files, to rows: few at a time, however much a batch unpacks to."""

from collections.abc import Iterator
from typing import Any

MOST_BYTES = 1 << 26
"""Limits on batches that unpack to more than ``MOST_RATIO`` times their size, and on values created at a time."""
MOST_RATIO = 200
_ROWS = 256
_NESTED_ROWS = 32


class Unreadable:
    """A cell without a Python value: a date beyond the year 9999, text that is not UTF-8."""


def rows_at_a_time(is_nested: bool) -> int:
    """The number of rows that are created at a time."""
    return _NESTED_ROWS if is_nested else _ROWS


def rows_of(batch: Any, most: int) -> Iterator[dict[str, Any]]:
    """The rows of a batch as Python values; row by row if many copies of a long text would be created at once."""
    longest = sum(_dictionary_bytes(column) for column in batch.columns)
    size = max(1, min(most, MOST_BYTES // max(1, longest)))
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
