"""A JSON text that is decoded value by value, in a stream."""

import codecs
import io
import json
from typing import Any, NoReturn, Protocol

from triphase.errors import DataError
from triphase.records.lines import LONGEST_LINE, without_mark

_CHUNK = 1 << 20


class Decoder(Protocol):
    """A JSON decoder that detects duplicate keys."""

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]: ...

    def taken_twice(self) -> str | None: ...


class JsonText:
    """A JSON text that is decoded value by value, and counts its lines.

    Attributes:
        line: the current line.
        last_line: the line on which the last value ended.
        twice: a duplicate key in one object of the last value.
    """

    def __init__(self, file: io.BufferedIOBase, name: str, decoder: Decoder) -> None:
        self._file = file
        self._name = name
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._decoder = decoder
        self._buffer = ""
        self._first = True
        self._ended = False
        self.line = self.last_line = 1
        self.twice: str | None = None

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            stripped = self._buffer.lstrip(" \t\n\r")
            self.line += self._buffer.count("\n", 0, len(self._buffer) - len(stripped))
            self._buffer = stripped
            if stripped or not self._more():
                return stripped[:1]

    def take(self, sign: str) -> None:
        """Consume ``sign``, which must be next."""
        found = self.peek()
        if found != sign:
            self.damaged(f"'{sign}' expected, {repr(found) if found else 'the end of the file'} found")
        self._buffer = self._buffer[1:]

    def value(self) -> tuple[Any, int, str]:
        """The next value, the line on which it starts, and its text."""
        self.peek()
        line = self.line
        while True:
            self._decoder.taken_twice()
            try:
                value, end = self._decoder.raw_decode(self._buffer)
            except json.JSONDecodeError as error:
                if not self._grown():
                    self.line += self._buffer.count("\n", 0, error.pos)
                    self.damaged(error.msg)
                continue
            except RecursionError:
                raise DataError(f"{self._name}:{line}: nested too deeply") from None
            except ValueError as error:
                self.damaged(str(error).split(";")[0])
            if end == len(self._buffer) and self._grown():
                continue  # a number may continue after the end of the buffer
            self.twice = self._decoder.taken_twice()
            text = self._buffer[:end]
            self.line += text.count("\n")
            self.last_line = self.line
            self._buffer = self._buffer[end:]
            return value, line, text

    def damaged(self, reason: str) -> NoReturn:
        """Refuse the file, at the current line."""
        raise DataError(f"{self._name}:{self.line}: not valid JSON: {reason}")

    def _grown(self) -> bool:
        """Read twice as much text, so that a long value is decoded only a few times; False at the end of the file."""
        if len(self._buffer) > LONGEST_LINE:
            raise DataError(f"{self._name}:{self.line}: a record of more than {LONGEST_LINE >> 20} MiB; is it one?")
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
