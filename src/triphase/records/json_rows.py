"""Rows of JSON lines and of JSON lists, read in a stream."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from triphase.errors import DataError
from triphase.records.json_text import JsonText
from triphase.records.lines import (
    MOST_COLUMNS,
    WHOLE,
    Part,
    RecordError,
    RefuseRow,
    Row,
    decoded,
    kind_of,
    numbered_lines,
    opened,
)

_LIST = re.compile(r"\s*\[\s*(\{|$)")
_SEVERAL_LINES = (
    "a record spans several lines; write one record per line (`jq -c . FILE` does), or a list in a .json file"
)


def json_lines(path: Path, name: str, refused: RefuseRow, part: Part = WHOLE) -> Iterator[Row]:
    """One record per line; empty lines are skipped."""
    decoder, first = StrictDecoder(), True
    for number, line in numbered_lines(path, name, part):
        if not line.strip():
            continue
        try:
            text = decoded(line, name, number)
            if first and part.count == 1:
                _require_lines(text, name, number)
            values = _parsed(decoder, text, name, number)
            row = Row(_object(values, text, name, number), name, number, raw=text.rstrip("\r\n"))
        except RecordError as error:
            refused(error)
            continue
        finally:
            first = False
        yield row


def json_list_or_lines(path: Path, name: str, refused: RefuseRow) -> Iterator[Row]:
    """The records of a JSON list, one at a time; a ``.json`` file that contains JSON lines is read as such."""
    with opened(path) as file:
        text = JsonText(file, name, StrictDecoder())
        start = text.peek()
        if start == "[":
            yield from _json_list(text, name, refused)
            return
        if start == "{":
            _require_records(text, name)
        elif start:
            raise DataError(
                f"{name}:{text.line}: the file must be a list of records, [{{…}}, {{…}}], or one record per line"
            )
    if start:
        yield from json_lines(path, name, refused)


class StrictDecoder(json.JSONDecoder):
    """Strict JSON: no NaN; ``twice`` is a duplicate key in one object of the last value."""

    def __init__(self) -> None:
        super().__init__(parse_constant=_no_constant, object_pairs_hook=self._object)
        self.twice: str | None = None

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            self.twice = next(key for key, count in counts.items() if count > 1)
        return values

    def taken_twice(self) -> str | None:
        """``twice``, reset for the next value."""
        twice, self.twice = self.twice, None
        return twice


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON value (write null or a text)")


def _require_lines(text: str, name: str, number: int) -> None:
    """Refuse a first line that cannot begin JSON lines: the error is then the file's, not the record's."""
    if _LIST.match(text):
        raise DataError(f"{name}:{number}: the file is a JSON list, not JSON lines; rename it to end in .json")
    if text.strip() == "{":
        raise DataError(f"{name}:{number}: {_SEVERAL_LINES}")


def _parsed(decoder: StrictDecoder, text: str, name: str, number: int) -> Any:
    try:
        value = decoder.decode(text)
    except json.JSONDecodeError as error:
        reason = f"not valid JSON: {error.msg} (column {error.pos + 1}){_cause(error, text)}"
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:
        reason = f"not valid JSON: {str(error).split(';')[0]}"
    else:
        twice = decoder.taken_twice()
        if twice is None:
            return value
        reason = f"the key {twice[:40]!r} appears twice in one object; keep one of them"
    decoder.twice = None
    raise RecordError(f"{name}:{number}: {reason}", number, text.rstrip("\r\n"))


def _cause(error: json.JSONDecodeError, text: str) -> str:
    """The likely cause of a syntax error, to be appended to its message; empty if there is none."""
    if "\r" in text.rstrip("\r\n"):
        return "; lines end with only a carriage return: save the file with line feeds"
    if error.msg.startswith("Invalid control character"):
        return r"; in a string a tab is written \t and a line break \n"
    if not text.endswith("\n") and (error.pos >= len(text) or error.msg.startswith("Unterminated")):
        return "; the file ends in the middle of the record: was it cut off?"
    return ""


def _object(value: Any, text: str, name: str, number: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecordError(
            f"{name}:{number}: a record must be an object like {{…}}, not {kind_of(value)}", number, text.rstrip("\r\n")
        )
    if len(value) > MOST_COLUMNS:
        raise RecordError(
            f"{name}:{number}: {len(value):,} columns; a record may have {MOST_COLUMNS:,}", number, text.rstrip("\r\n")
        )
    return value


def _json_list(text: JsonText, name: str, refused: RefuseRow) -> Iterator[Row]:
    text.take("[")
    if text.peek() == "]":
        text.take("]")
    else:
        while True:
            value, line, raw = text.value()
            try:
                if text.twice is not None:
                    reason = f"the key {text.twice[:40]!r} appears twice in one object; keep one of them"
                    raise RecordError(f"{name}:{line}: {reason}", line, raw)
                row = Row(_object(value, raw, name, line), name, line, raw=raw)
            except RecordError as error:
                refused(error)
            else:
                yield row
            if text.peek() != ",":
                break
            text.take(",")
            if text.peek() == "]":
                text.damaged("there is a comma before the closing ]")
        text.take("]")
    if text.peek():
        raise DataError(f"{name}:{text.line}: not valid JSON: text after the end of the list")


def _require_records(text: JsonText, name: str) -> None:
    """Require that a ``.json`` file which begins with an object has one record per line: the error says what it has."""
    try:
        value, start, _ = text.value()
        alone = not text.peek()
    except DataError:
        return  # reported line by line
    end = text.line
    lists = {key: found for key, found in value.items() if isinstance(found, list) and found}
    if alone and len(lists) == len(value) and lists and not any(isinstance(found[0], dict) for found in lists.values()):
        raise DataError(f"{name}:{start}: the file is one object of columns; write a list of records, [{{…}}, {{…}}]")
    if alone and len(value) > 1 and all(isinstance(each, dict) and "0" in each for each in value.values()):
        raise DataError(
            f"{name}:{start}: the file is one object of columns; write one record per line "
            "(pandas: to_json(FILE, orient='records', lines=True), with a name that ends in .jsonl)"
        )
    inside = [key for key, found in lists.items() if all(isinstance(one, dict) for one in found)]
    if alone and inside and (start < end or not _is_record(value)):
        key = inside[0][:40]
        raise DataError(
            f"{name}:{start}: the file is one object with a list under {key!r}; write that list alone, [{{…}}, {{…}}]"
        )
    if alone and start < text.last_line:
        raise DataError(f"{name}:{start}: the file is one object over several lines; write [ before it and ] after it")
    if start < text.last_line:
        raise DataError(f"{name}:{start}: {_SEVERAL_LINES}")


def _is_record(value: dict[str, Any]) -> bool:
    """Whether an object with a list of objects in it may be a record: it has a column of messages, or text."""
    return bool({"messages", "conversations", "prompt", "chosen", "instruction"} & value.keys())
