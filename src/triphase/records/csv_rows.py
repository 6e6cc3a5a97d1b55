"""Rows of a CSV file, with a header, read in a stream. The apostrophe of exports before formulas is removed."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from triphase.errors import DataError
from triphase.records.lines import (
    LONGEST_LINE,
    RecordError,
    RefuseRow,
    Row,
    decoded,
    numbered_lines,
    require_usable_columns,
)
from triphase.records.paths import format_of, shown
from triphase.records.spreadsheet_formulas import NAMES, unprotected

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}


def csv_rows(path: Path, name: str, refused: RefuseRow) -> Iterator[Row]:
    """The rows after the header. A quoted cell may contain commas (tabs, in a ``.tsv`` file) and line breaks."""
    comma = "\t" if format_of(path) == ".tsv" else ","
    csv.field_size_limit(min(sys.maxsize, LONGEST_LINE))
    lines = _Lines(path, name)
    reader = csv.reader(lines, strict=True, delimiter=comma)
    columns: list[str] | None = None
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{name}:{number}: not valid CSV: {error}{_cause(lines.text)}") from None
        text = lines.taken()
        if fields is None:
            return
        if not fields:
            continue  # an empty line
        if columns is None:
            columns = _header(fields, name, number, comma)
        elif len(fields) != len(columns):
            reason = (
                f"{len(fields)} field{'s' * (len(fields) > 1)}, where the first line names {len(columns)} "
                f"column{'s' * (len(columns) > 1)}; quote a cell that contains {_SEPARATORS[comma]} or line breaks"
            )
            refused(RecordError(f"{name}:{number}: {reason}", number, text))
        else:
            cells = zip(columns, fields, strict=True)
            values = {column: unprotected(cell) if column in NAMES else cell for column, cell in cells}
            yield Row(values, name, number, raw=text)


class _Lines:
    """The lines of a file as text, and the text of those consumed since the last call."""

    def __init__(self, path: Path, name: str) -> None:
        self._lines = numbered_lines(path, name)
        self._name = name
        self._taken: list[str] = []
        self._size = 0

    def __iter__(self) -> Iterator[str]:
        for number, line in self._lines:
            self._taken.append(decoded(line, self._name, number))
            self._size += len(line)
            if self._size > LONGEST_LINE:
                raise DataError(
                    f"{self._name}:{number}: a record of more than {LONGEST_LINE >> 20} MiB; is a quote missing?"
                )
            yield self._taken[-1]

    @property
    def text(self) -> str:
        return "".join(self._taken).rstrip("\r\n")

    def taken(self) -> str:
        text = self.text
        self._taken.clear()
        self._size = 0
        return text


def _header(columns: list[str], name: str, number: int, comma: str) -> list[str]:
    for separator, called in _SEPARATORS.items():
        if len(columns) == 1 and separator in columns[0]:
            remedy = "rename it to end in .tsv" if separator == "\t" else f"write {_SEPARATORS[comma]} between them"
            raise DataError(f"{name}:{number}: the columns are separated by {called}; {remedy}")
    require_usable_columns(columns, f"{name}:{number}")
    for column in columns:
        if column != column.strip():
            raise DataError(
                f"{name}:{number}: the column {shown(column)!r} has spaces around its name; write {column.strip()!r}"
            )
    return columns


def _cause(text: str) -> str:
    lone = text.replace("\r\n", "\n").rstrip("\r\n")
    return "; lines end with only a carriage return: save the file with line feeds" if "\r" in lone else ""
