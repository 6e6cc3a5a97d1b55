"""Rows and their source: the file, the line, and how a row is refused."""

import codecs
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from triphase.errors import DataError
from triphase.records.paths import shown

LONGEST_LINE = 1 << 26
MOST_COLUMNS = 10_000
"""Maximum columns of a record: messages about columns compare each with our names."""
_START = 1 << 10
_COMPRESSED = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst", b"PK\x03\x04": "", b"BZh": "", b"\xfd7zXZ": ""}
"""First bytes of compressed files, with the suffix of those that are read."""
_MOST_NAMED = 12


class RecordError(DataError):
    """An unusable record: with its line (or row), and its text if the file has one.

    Attributes:
        number: the line, or the row according to ``unit``.
        text: the record as in the file; for Parquet and hub rows their JSON.
    """

    def __init__(self, message: str, number: int | None = None, text: str | None = None, unit: str = "line") -> None:
        super().__init__(message)
        self.number = number
        self.text = text
        self.unit = unit


@dataclass(frozen=True, slots=True)
class Row:
    """One record as in the file. ``number`` is its line (or its row) from 1.

    ``raw`` is its text if the file has one. ``read`` collects the columns that were read, ``ignored`` the parts of
    columns that were not, so that nothing is ignored silently; ``remarks`` what else is said about it.
    """

    values: Mapping[str, Any]
    file: str
    number: int
    unit: str = "line"
    raw: str = field(default="", compare=False)
    read: set[str] = field(default_factory=set, compare=False)
    ignored: set[str] = field(default_factory=set, compare=False)
    remarks: set[str] = field(default_factory=set, compare=False)

    def get(self, column: str) -> Any:
        """The value of a column, which counts as read; None if it is absent."""
        self.read.add(column)
        return self.values.get(column)

    def unread(self) -> tuple[str, ...]:
        """The nonempty columns that were not read, in the file's order, then parts of columns."""
        columns = [name for name, value in self.values.items() if name not in self.read and not is_blank(value)]
        return (*columns, *sorted(self.ignored)) if self.ignored else tuple(columns)

    @property
    def where(self) -> str:
        return self.at(self.number)

    def at(self, number: int) -> str:
        """The format of a location in this file."""
        return f"{self.file}:{number}" if self.unit == "line" else f"{self.file}: {self.unit} {number}"

    def refuse(self, reason: str) -> NoReturn:
        raise RecordError(f"{self.where}: {reason}", self.number, self.text, self.unit)

    @property
    def text(self) -> str:
        """The record as in the file; if the file has no text, as JSON."""
        return self.raw or json.dumps(dict(self.values), ensure_ascii=False, default=str)


def is_blank(value: Any) -> bool:
    """Whether a cell is empty: null, empty text, an empty list or object."""
    return value is None or (isinstance(value, str | list | Mapping) and not value)


RefuseRow = Callable[[DataError], None]


def raise_refused(error: DataError) -> None:
    """The default for an unusable row: stop with its error."""
    raise error


@dataclass(frozen=True, slots=True)
class Part:
    """One of ``count`` equal parts of a file of lines: blocks of lines in turn, so that several processes can share."""

    index: int
    count: int

    def holds(self, number: int) -> bool:
        """Whether a line (from 1) belongs to this part."""
        return (number >> _BLOCK_BITS) % self.count == self.index


WHOLE = Part(0, 1)
_BLOCK_BITS = 8


def numbered_lines(path: Path, name: str, part: Part = WHOLE) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, decompressed if it is gzip, with their numbers from 1 and without a byte order mark."""
    with opened(path) as file:
        number = 0
        while line := file.readline(LONGEST_LINE):
            number += 1
            if len(line) == LONGEST_LINE:
                raise DataError(f"{name}:{number}: a line of more than {LONGEST_LINE >> 20} MiB; is it JSON lines?")
            if number == 1:
                line = without_mark(line, name)
            if part.count == 1 or part.holds(number):
                yield number, line


def without_mark(start: bytes, name: str) -> bytes:
    """``start`` of a file without the mark of UTF-8; UTF-16 and compressed files are refused."""
    for signature, suffix in _COMPRESSED.items():
        if start.startswith(signature):
            remedy = f"add {suffix} to its name" if suffix else "unpack it"
            raise DataError(f"{name}: is compressed, and its name does not say so; {remedy}")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{name}: is UTF-16 text; save the file as UTF-8")
    if b"\0" in start[:_START] and start[:_START].count(b"\0") * 3 > len(start[:_START]):
        raise DataError(f"{name}: looks like UTF-16 or UTF-32 text without a byte-order mark; save the file as UTF-8")
    return start.removeprefix(codecs.BOM_UTF8)


def opened(path: Path) -> io.BufferedIOBase:
    """The bytes of a file, decompressed if its name ends in ``.gz`` or ``.zst``."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")
    if path.suffix.lower() == ".zst":
        return _unpacked_zst(path)
    return open(path, "rb")


def _unpacked_zst(path: Path) -> io.BufferedIOBase:
    try:
        import pyarrow
    except ImportError:
        raise DataError(f"{path}: .zst needs pyarrow; run: pip install 'triphase[parquet]'") from None
    stream: io.RawIOBase = pyarrow.input_stream(str(path), compression="zstd")
    return io.BufferedReader(stream)


def decoded(line: bytes, name: str, number: int) -> str:
    """A line as text, which must be UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(
            f"{name}:{number}: not UTF-8 text (byte {error.start + 1} of the line is 0x{line[error.start]:02x}); "
            "save the file as UTF-8",
            number,
            line.decode("utf-8", "backslashreplace").rstrip("\r\n"),
        ) from None


def kind_of(value: Any) -> str:
    """The JSON name of the type of ``value``, for error messages."""
    match value:
        case None:
            return "null"
        case bool():
            return "true/false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
    return type(value).__name__


def partial_columns(columns: Mapping[str, int], records: int) -> str | None:
    """A line on columns that some of so many records lack, for a scorer that is given them; None if there are none."""
    lacking = [f"{name} ({records - count} of {records})" for name, count in columns.items() if 0 < count < records]
    return f"records without a column (the scorer gets None): {', '.join(lacking)}" if lacking else None


def unread_columns(columns: Mapping[str, int]) -> str:
    """The columns that are not read, those that are nonempty in most records first."""
    ordered = sorted(columns.items(), key=lambda item: -item[1])
    most = ", ".join(
        f"{name[:80] or 'one without a name'} ({count} record{'s' * (count > 1)})"
        for name, count in ordered[:_MOST_NAMED]
    )
    more = f" and {len(ordered) - _MOST_NAMED} more" if len(ordered) > _MOST_NAMED else ""
    return f"columns that are not read: {most}{more}"


def require_usable_columns(names: Sequence[str], where: str) -> None:
    """Refuse duplicate column names, since only one of them could be read, and too many columns.

    Raises:
        DataError: there are; the message begins with ``where``.
    """
    if len(names) > MOST_COLUMNS:
        raise DataError(f"{where}: {len(names):,} columns; a record may have {MOST_COLUMNS:,}")
    known = set[str]()
    for column in names:
        if column in known:
            raise DataError(f"{where}: the column {shown(column)!r} appears twice; rename or remove one")
        known.add(column)
