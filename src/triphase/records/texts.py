"""Cells of text: what can be stored and encoded, and lists that are written as text in a cell."""

import ast
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any

from triphase.records.lines import Row, kind_of

LONGEST_TEXT = 1 << 22
"""Maximum characters of one text. A model with room for a million tokens reads no more, and counting tokens takes a
second per million characters."""
_LONGEST_NOTATION = 1 << 20
_OBJECT = re.compile(r"\s*(\[\s*)?\{\s*(['\"])\w+\2\s*:")
_TURN = re.compile(r"\s*(\[\s*)?\{\s*(['\"])(role|from|content|value)\2\s*:")


def text_of(row: Row, column: str, value: Any) -> str:
    """``value`` as text that can be stored and encoded; not empty."""
    if not isinstance(value, str):
        row.refuse(f"{column} must be text, not {kind_of(value)}")
    if not value.strip():
        row.refuse(f"{column} is empty")
    return storable(row, column, value)


def plain_text_of(row: Row, column: str, value: Any) -> str:
    """Like ``text_of``, for a column with text only: the text of a list of messages is refused."""
    text = text_of(row, column, value)
    if written_out(row, column, text) is not None:
        row.refuse(
            f"{column} contains a list of messages as text; this is supported only in messages, "
            f"prompt, chosen and rejected"
        )
    return text


def storable(row: Row, column: str, text: str) -> str:
    """``text``, which is not too long and contains only valid characters."""
    if len(text) > LONGEST_TEXT:
        row.refuse(f"{column} has {len(text):,} characters; no model reads more than {LONGEST_TEXT:,}")
    if "\0" in text:
        row.refuse(f"{column} contains a NUL character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        row.refuse(f"{column} contains half of a surrogate pair (\\ud800 to \\udfff), which is not a valid character")
    return text


def written_out(row: Row, column: str, value: Any) -> Any:
    """``value``, parsed if it is text that contains messages (JSON, or Python's notation, as written by tables).

    None if ``value`` is text, or anything else, without messages. A text that begins like messages and cannot be parsed
    is refused: it is never taken for a user's message.
    """
    if not isinstance(value, str) or value[:1] not in "[{ \t\r\n" or not _OBJECT.match(value):
        return None
    found = parsed(value)
    if _is_turn(found) or (isinstance(found, list) and found and _is_turn(found[0])):
        return found
    if found is None and _TURN.match(value):
        row.refuse(
            f"{column} looks like a list of messages as text, but is neither JSON nor Python "
            f"notation; write the list itself"
        )
    return None


def parsed(text: str) -> Any:
    """The value that ``text`` represents as JSON or as Python literals; None if it is neither. Nothing is executed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if len(text) > _LONGEST_NOTATION:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _is_turn(value: Any) -> bool:
    return isinstance(value, Mapping) and ({"role", "content"} <= value.keys() or {"from", "value"} <= value.keys())
