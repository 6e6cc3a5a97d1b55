"""Rows of a data file, each with the place it came from: JSON lines, JSON, CSV, Parquet, and hub data sets.

Local files are read in a stream, one row in memory at a time, and every error names the file and the line (in Parquet
and on the hub, the row). Nothing is guessed: the format is the file's suffix, ``.gz`` may follow it, text is UTF-8.
"""

import csv
import gzip
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from triphase.errors import DataError
from triphase.records.json_rows import json_lines, json_list_or_lines
from triphase.records.lines import LONGEST_LINE, WHOLE, Part, RefuseRow, Row, decoded, numbered_lines, raise_refused
from triphase.settings.schema import SourceSettings

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
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
    path = (base / Path(source.path).expanduser()).resolve()
    reader = _READERS.get(_format(path))
    if reader is None:
        raise DataError(f"{path}: unknown kind of file; use one of {', '.join(SUFFIXES)} (.gz may follow)")
    name = _shown(source.path, path)
    try:
        yield from reader(path, name, refused) if part.count == 1 else json_lines(path, name, refused, part)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; paths are relative to the settings file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a directory; name the files in it one by one") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{name}: damaged gzip file ({error}); fetch or write it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def is_file_name(text: str, base: Path) -> bool:
    """Whether ``text`` names a file rather than a hub data set."""
    if "\0" in text:
        raise DataError("the path of a data file contains a NUL character")
    explicit = text.startswith(("/", "./", "../", "~")) or _format(Path(text)) in SUFFIXES
    return explicit or (base / text).is_file()


def _format(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else (suffixes or [""])[-1]


def _shown(given: str, path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return given


def _csv(path: Path, name: str, refused: RefuseRow) -> Iterator[Row]:
    csv.field_size_limit(min(sys.maxsize, LONGEST_LINE))
    lines = (decoded(line, name, number) for number, line in numbered_lines(path, name))
    reader = csv.reader(lines, strict=True)
    columns: list[str] | None = None
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{name}:{number}: not valid CSV: {error}") from None
        if fields is None:
            return
        if columns is None:
            columns = fields
        elif len(fields) != len(columns):
            if fields:
                refused(DataError(f"{name}:{number}: {len(fields)} fields, where there are {len(columns)} columns"))
        else:
            yield Row(dict(zip(columns, fields, strict=True)), name, number)


def _parquet(path: Path, name: str, refused: RefuseRow) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{name}: Parquet needs pyarrow; run: pip install 'triphase[train]'") from None
    if _format(path) != path.suffix.lower():
        raise DataError(f"{name}: Parquet is compressed inside; unpack the .gz")
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, name, number, unit="row")
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{name}: row {number + 1}: damaged Parquet file ({_first_line(error)})") from None


def _hub_rows(source: SourceSettings) -> Iterator[Row]:
    if not _HUB_ID.match(source.path):
        raise DataError(f"{source.path}: neither a file ({', '.join(SUFFIXES)}) nor a hub id like organisation/name")
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
    ".csv": _csv,
    ".parquet": _parquet,
}
