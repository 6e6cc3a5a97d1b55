"""Rows of a data file, each with the place it came from: JSON lines, JSON, CSV, Parquet, and hub data sets.

Local files are read in a stream, one row in memory at a time, and every error names the file and the line (in Parquet
and on the hub, the row). Nothing is guessed: the format is the file's suffix, ``.gz`` may follow it, text is UTF-8.
"""

import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from triphase.errors import DataError
from triphase.records.csv_rows import csv_rows
from triphase.records.json_rows import json_lines, json_list_or_lines
from triphase.records.lines import WHOLE, Part, RefuseRow, Row, raise_refused
from triphase.records.parquet_rows import parquet_rows
from triphase.records.paths import SUFFIXES, data_file, display_name, format_of, is_file_name, shown
from triphase.settings.data import SourceSettings

_LONGEST_HUB_ID = 200
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")


def read_rows(
    source: SourceSettings, base: Path, refused: RefuseRow = raise_refused, part: Part = WHOLE
) -> Iterator[Row]:
    """The rows of one source. A relative path is taken from ``base``; what is no file is a hub id.

    A row that cannot be parsed goes to ``refused``, which raises it, or counts it and lets the reading go on. Only a
    ``.jsonl`` file can be read in parts.
    """
    if not is_file_name(source.path, base):
        yield from _hub_rows(source)
        return
    path = data_file(source.path, base)
    reader = _READERS.get(format_of(path))
    if reader is None:
        known = ", ".join(SUFFIXES)
        raise DataError(f"{shown(str(path))}: unknown kind of file; its name must end in {known} (.gz may follow)")
    name = display_name(source.path, path)
    try:
        yield from reader(path, name, refused) if part.count == 1 else json_lines(path, name, refused, part)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{name}: damaged gzip file ({error}); fetch or write it again") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error})") from None


def _hub_rows(source: SourceSettings) -> Iterator[Row]:
    if not _HUB_ID.match(source.path) or len(source.path) > _LONGEST_HUB_ID:
        raise DataError(
            f"{shown(source.path)}: neither a file ({', '.join(SUFFIXES)}) nor a hub id like organization/name"
        )
    name = f"{source.path} ({source.split})"
    for number, values in enumerate(_hub_data_set(source, name), start=1):
        yield Row(values, name, number, unit="row")


def _hub_data_set(source: SourceSettings, name: str) -> Iterable[Mapping[str, Any]]:
    try:
        from datasets import Dataset, load_dataset
    except ImportError:
        raise DataError(f"{name}: hub data sets need datasets; run: pip install 'triphase[train]'") from None
    try:
        rows = load_dataset(source.path, split=source.split)
    except Exception as error:  # the library raises many kinds of its own, of the network and of the file system
        raise DataError(
            f"{name}: could not be loaded from the hub ({type(error).__name__}: {_first_line(error)}); "
            "check the id, the split and the network, or name a local file with its suffix"
        ) from error
    if not isinstance(rows, Dataset):
        raise DataError(f"{name}: is not a table of records")
    table: Iterable[Mapping[str, Any]] = rows
    return table


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


_READERS: dict[str, Callable[[Path, str, RefuseRow], Iterator[Row]]] = {
    ".jsonl": json_lines,
    ".json": json_list_or_lines,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
}
