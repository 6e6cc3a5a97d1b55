"""Rows of a source, each with its location: local files of any kind, saved data sets, and hub data sets.

Local files are read in a stream, one row in memory at a time, and every error names the file and the line (or the row,
if there are no lines). Nothing is guessed: the suffix determines the format, ``.gz`` or ``.zst`` may follow it, text is
UTF-8. A pattern or a directory means all of its files, sorted by name.
"""

import gzip
import heapq
import zlib
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path

from triphase.errors import DataError
from triphase.records.arrow_rows import arrow_rows, saved_rows
from triphase.records.csv_rows import csv_rows
from triphase.records.flat_trees import joined
from triphase.records.hub_rows import hub_rows
from triphase.records.json_rows import json_lines, json_list_or_lines
from triphase.records.lines import WHOLE, Part, RefuseRow, Row, is_blank, raise_refused
from triphase.records.parquet_rows import parquet_rows
from triphase.records.paths import (
    SUFFIXES,
    data_files,
    display_name,
    format_of,
    is_file_name,
    is_saved_table,
    other_files,
    shown,
)
from triphase.records.rated_rows import begins_rated, ranked_together
from triphase.settings.data import SourceSettings

_SHOWN = 5
_POINTER = b"version https://git-lfs"
_HEADER_BYTES = 1 << 16
"""A file with a header and no record is smaller."""


def read_rows(
    source: SourceSettings,
    base: Path,
    refused: RefuseRow = raise_refused,
    part: Part = WHOLE,
    *,
    are_compared: bool = False,
) -> Iterator[Row]:
    """The rows of one source, with its columns under our names, and no more than its limit.

    A relative path is relative to ``base``; what is not a file is a hub id. A row that cannot be parsed goes to
    ``refused``, which raises it, or counts it and lets the reading continue. Only a ``.jsonl`` file can be read in
    parts. ``are_compared`` joins rows that each have one rated answer to the same prompt.
    """
    rows = joined(_rows(source, base, refused, part), refused)
    columns, name = source.columns, shown(source.path)
    if are_compared and columns:  # rated answers are recognized, and joined, by our names
        first = list(islice(rows, 1))
        rows = chain(first, rows)
        if first and begins_rated(next(_renamed(iter(first), columns, name))):
            rows, columns = _renamed(rows, columns, name), {}
    if are_compared:
        rows = ranked_together(rows, refused)
    if source.max_records is not None:
        rows = _drawn(rows, source.max_records) if source.shuffle else islice(rows, source.max_records)
    return _renamed(rows, columns, name) if columns else rows


def files_of(source: SourceSettings, base: Path = Path()) -> list[Path]:
    """The local files of a source; empty for a hub data set, or if none can be found."""
    try:
        place = base / source.path
        if not is_file_name(source.path, base):
            return []
        if place.is_dir() and is_saved_table(place):
            return sorted(path for path in place.rglob("*") if path.is_file())
        return data_files(source.path, base)
    except (DataError, OSError, ValueError):
        return []


def other_files_notes(source: SourceSettings) -> list[str]:
    """Lines on the files next to those of a source that are not read, and on those without a record; none if there are
    none."""
    if not is_file_name(source.path, Path()) or is_saved_table(Path(source.path)):
        return []
    empty = [path.name for path in files_of(source) if path.is_file() and _is_empty(path)]
    found = {"not read": other_files(source.path, Path()), "empty": empty}
    return [
        f"files that are {what}: {', '.join(names[:_SHOWN])}"
        + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        for what, names in found.items()
        if names
    ]


def _is_empty(path: Path) -> bool:
    """Whether a file has no record: no byte, a header alone, an empty list."""
    if path.stat().st_size > _HEADER_BYTES or format_of(path) not in _READERS:
        return False
    try:
        return next(_file_rows(path, path.name, raise_refused, WHOLE), None) is None
    except DataError:
        return False  # reading it tells the error


def _rows(source: SourceSettings, base: Path, refused: RefuseRow, part: Part) -> Iterator[Row]:
    if not is_file_name(source.path, base):
        yield from hub_rows(source)
        return
    if source.config is not None or source.revision is not None or source.streaming:
        raise DataError(
            f"{shown(source.path)}: config, revision and streaming apply to hub data sets only; leave them out"
        )
    place = base / Path(source.path)
    if "\0" not in source.path and is_saved_table(place):
        yield from saved_rows(place, source.split, display_name(source.path, place.resolve()))
        return
    if source.split != "train":
        raise DataError(
            f"{shown(source.path)}: split: {shown(source.split)} applies only to hub data sets and directories of "
            "save_to_disk; name the files of the split instead"
        )
    paths = data_files(source.path, base)
    for path in paths:
        given = source.path if len(paths) == 1 and place.resolve() == path else str(path)
        name = display_name(given, path)
        yield from _file_rows(path, name, refused, part)


def _file_rows(path: Path, name: str, refused: RefuseRow, part: Part) -> Iterator[Row]:
    reader = _READERS.get(format_of(path))
    if reader is None:
        known = ", ".join(SUFFIXES)
        raise DataError(
            f"{shown(str(path))}: unknown kind of file; its name must end in {known} (.gz or .zst may follow)"
        )
    try:
        _require_content(path, name)
        yield from reader(path, name, refused) if part.count == 1 else json_lines(path, name, refused, part)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{name}: damaged gzip file ({error}); download or write it again") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error})") from None


def _require_content(path: Path, name: str) -> None:
    """Refuse what a clone without Git LFS has in the place of a large file.

    Raises:
        DataError: it is that.
    """
    with open(path, "rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise DataError(
                f"{name}: is only a pointer of Git LFS; run `git lfs pull` in the clone, or download the file"
            )


def _drawn(rows: Iterator[Row], count: int) -> Iterator[Row]:
    """``count`` rows selected by a hash of each, in the order of the file: rows added later displace few of them."""
    kept: list[tuple[int, int, Row]] = []
    for number, row in enumerate(rows):
        place = int.from_bytes(blake2b(row.text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        item = (-place, -number, row)
        if len(kept) < count:
            heapq.heappush(kept, item)
        elif item[:2] > kept[0][:2]:
            heapq.heapreplace(kept, item)
    yield from (row for _, _, row in sorted(kept, key=lambda item: -item[1]))


def _renamed(rows: Iterator[Row], columns: Mapping[str, str], name: str) -> Iterator[Row]:
    """The rows with their columns under our names.

    Raises:
        DataError: at the end, if no row had one of the columns.
    """
    missing, others = set(columns.values()), dict[str, None]()
    for row in rows:
        found = {ours: row.values[theirs] for ours, theirs in columns.items() if theirs in row.values}
        kept = {key: value for key, value in row.values.items() if key not in columns.values()}
        made = Row({**kept, **found}, row.file, row.number, row.unit, row.raw)
        made.ignored.update(
            f"{key} ({columns[key]} is used instead)" for key in kept.keys() & found.keys() if not is_blank(kept[key])
        )
        if missing:
            missing.difference_update(row.values)
            others.update(dict.fromkeys(map(str, row.values)))
        yield made
    if missing and others:
        ours = next(key for key, theirs in columns.items() if theirs in missing)
        raise DataError(
            f"{name}: columns.{ours}: no record has the column {columns[ours]!r}; they have {', '.join(others)[:200]}"
        )


_READERS: dict[str, Callable[[Path, str, RefuseRow], Iterator[Row]]] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".jsonlines": json_lines,
    ".json": json_list_or_lines,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": parquet_rows,
    ".arrow": arrow_rows,
}
