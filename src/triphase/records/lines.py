"""Rows and the text they come from: which file, which line, and how a row is refused."""

import codecs
import gzip
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from triphase.errors import DataError

LONGEST_LINE = 1 << 28


@dataclass(frozen=True, slots=True)
class Row:
    """One record as it stands in the file. ``number`` is its line (or its row) from 1."""

    values: Mapping[str, Any]
    file: str
    number: int
    unit: str = "line"

    @property
    def where(self) -> str:
        return self.at(self.number)

    def at(self, number: int) -> str:
        """How a place of this file is named."""
        return f"{self.file}:{number}" if self.unit == "line" else f"{self.file}: {self.unit} {number}"

    def refuse(self, reason: str) -> NoReturn:
        raise DataError(f"{self.where}: {reason}")


RefuseRow = Callable[[DataError], None]


def raise_refused(error: DataError) -> None:
    """The default for a row that cannot be used: stop with its error."""
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
    """The lines of a file, unpacked where it is gzip, with their numbers from 1 and without a byte order mark."""
    with opened(path) as file:
        number = 0
        while line := file.readline(LONGEST_LINE):
            number += 1
            if len(line) == LONGEST_LINE:
                raise DataError(f"{name}:{number}: a line of more than {LONGEST_LINE >> 20} MiB; is this JSON lines?")
            if number == 1:
                line = without_mark(line, name)
            if part.count == 1 or part.holds(number):
                yield number, line


def without_mark(start: bytes, name: str) -> bytes:
    """``start`` of a file without the mark of UTF-8; UTF-16 is refused."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{name}: is UTF-16 text; save the file as UTF-8")
    return start.removeprefix(codecs.BOM_UTF8)


def opened(path: Path) -> io.BufferedIOBase:
    """The bytes of a file, unpacked where its name ends in ``.gz``."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")
    return open(path, "rb")


def decoded(line: bytes, name: str, number: int) -> str:
    """A line as text, which must be UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}:{number}: not UTF-8 text (byte {error.start + 1} of the line is 0x{line[error.start]:02x}); "
            "save the file as UTF-8"
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
