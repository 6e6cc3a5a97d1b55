"""Rows of JSON lines and of JSON lists, read in a stream."""

import codecs
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from triphase.errors import DataError
from triphase.records.lines import WHOLE, Part, RefuseRow, Row, decoded, kind_of, numbered_lines, opened, without_mark

_CHUNK = 1 << 20


def json_lines(path: Path, name: str, refused: RefuseRow, part: Part = WHOLE) -> Iterator[Row]:
    """One record a line; empty lines are passed over."""
    for number, line in numbered_lines(path, name, part):
        if not line.strip():
            continue
        try:
            row = Row(_object(_parsed(decoded(line, name, number), name, number), name, number), name, number)
        except DataError as error:
            refused(error)
            continue
        yield row


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON value")


_decode = json.JSONDecoder(parse_constant=_no_constant).decode


def _parsed(text: str, name: str, number: int) -> Any:
    try:
        return _decode(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{name}:{number}: not valid JSON: {error.msg} (column {error.pos + 1})") from None
    except RecursionError:
        raise DataError(f"{name}:{number}: nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{name}:{number}: not valid JSON: {str(error).split(';')[0]}") from None


def _object(value: Any, name: str, number: int) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{name}:{number}: a record must be an object like {{…}}, not {kind_of(value)}")
    return value


def json_list_or_lines(path: Path, name: str, refused: RefuseRow) -> Iterator[Row]:
    """The records of a JSON list, one at a time; a ``.json`` file that holds JSON lines is read as such."""
    with opened(path) as file:
        text = _JsonText(file, name)
        start = text.peek()
        if start == "[":
            yield from _json_list(text, name)
            return
    if start == "{":
        yield from json_lines(path, name, refused)
    elif start:
        raise DataError(f"{name}:{text.line}: the file must be a list of records, [{{…}}, {{…}}], or one record a line")


def _json_list(text: "_JsonText", name: str) -> Iterator[Row]:
    text.take("[")
    if text.peek() == "]":
        text.take("]")
    else:
        while True:
            value, line = text.value()
            yield Row(_object(value, name, line), name, line)
            if text.peek() != ",":
                break
            text.take(",")
        text.take("]")
    if text.peek():
        raise DataError(f"{name}:{text.line}: not valid JSON: text after the end of the list")


class _JsonText:
    """A JSON text that is decoded value by value, and counts its lines."""

    def __init__(self, file: io.BufferedIOBase, name: str) -> None:
        self._file = file
        self._name = name
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._decoder = json.JSONDecoder(parse_constant=_no_constant)
        self._buffer = ""
        self._first = True
        self._ended = False
        self.line = 1

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            stripped = self._buffer.lstrip(" \t\n\r")
            self.line += self._buffer.count("\n", 0, len(self._buffer) - len(stripped))
            self._buffer = stripped
            if stripped or not self._more():
                return stripped[:1]

    def take(self, sign: str) -> None:
        found = self.peek()
        if found != sign:
            self._damaged(f"'{sign}' expected, {repr(found) if found else 'the end of the file'} found")
        self._buffer = self._buffer[1:]

    def value(self) -> tuple[Any, int]:
        """The next value, and the line on which it starts."""
        self.peek()
        line = self.line
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer)
            except json.JSONDecodeError as error:
                if not self._grown():
                    self.line += self._buffer.count("\n", 0, error.pos)
                    self._damaged(error.msg)
                continue
            except RecursionError:
                raise DataError(f"{self._name}:{line}: nested too deeply") from None
            except ValueError as error:
                self._damaged(str(error).split(";")[0])
            if end == len(self._buffer) and self._grown():
                continue  # a number may go on behind the end of the buffer
            self.line += self._buffer.count("\n", 0, end)
            self._buffer = self._buffer[end:]
            return value, line

    def _grown(self) -> bool:
        """Twice as much text, so that a long value is decoded a few times only; False at the end of the file."""
        wanted = 2 * len(self._buffer)
        grew = False
        while len(self._buffer) < wanted and self._more():
            grew = True
        return grew

    def _more(self) -> bool:
        if self._ended:
            return False
        data = self._file.read(_CHUNK)
        if self._first:
            data, self._first = without_mark(data, self._name), False
        self._ended = not data
        try:
            self._buffer += self._decode.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            line = self.line + self._buffer.count("\n") + data[: error.start].count(b"\n")
            raise DataError(f"{self._name}:{line}: not UTF-8 text; save the file as UTF-8") from None
        return not self._ended

    def _damaged(self, reason: str) -> NoReturn:
        raise DataError(f"{self._name}:{self.line}: not valid JSON: {reason}")
