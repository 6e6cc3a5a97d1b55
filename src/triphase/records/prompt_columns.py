"""The columns of a record besides its prompt, for a scorer that needs them: a reference answer, unit tests."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, time
from decimal import Decimal
from typing import Any

from triphase.records.lines import Row
from triphase.records.prompts import QUESTIONS
from triphase.records.types import Prompt

TAKEN = ("prompt", "prompts", "completion", "completions", "completion_ids", "response", "responses", "finished")
"""Names of columns that are not passed to a scorer, because it gets the prompt and the response under these names."""


def with_columns(prompt: Prompt, row: Row) -> Prompt:
    """``prompt`` with the columns of its record, and whether the prompt was a text there.

    Raises:
        DataError: a column contains what JSON cannot represent.
    """
    columns = {name: _plain(row, name, value) for name, value in row.values.items() if name not in TAKEN}
    return replace(prompt, is_text=_is_text(prompt, row), columns=columns)


def joined_columns(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The columns of two records of one prompt, and the names of those with another value in the second.

    The first value stays; one that the first record lacks comes from the second.
    """
    columns, contradicting = {**first}, []
    for name, value in second.items():
        if columns.get(name) is None:
            columns[name] = value
        elif value is not None and value != columns[name]:
            contradicting.append(name)
    return columns, contradicting


def with_same_columns(prompts: Iterable[Prompt]) -> list[Prompt]:
    """``prompts`` with the columns of all of them; one that a record lacks holds None."""
    listed = list(prompts)
    names: dict[str, Any] = dict.fromkeys(name for prompt in listed for name in prompt.columns)
    return [replace(prompt, columns={**names, **prompt.columns}) for prompt in listed]


def _is_text(prompt: Prompt, row: Row) -> bool:
    """Whether the prompt comes from a cell of text, and not from a list of messages."""
    if len(prompt.messages) != 1:
        return False
    cells = [value.strip() for name in QUESTIONS if isinstance(value := row.values.get(name), str)]
    return any(cell and cell in prompt.messages[0].content for cell in cells)


def _plain(row: Row, name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, default=_in_json)
        text.encode()  # requests are in UTF-8, which cannot encode half of a surrogate pair
        return value if isinstance(value, str) else json.loads(text)
    except UnicodeEncodeError:
        row.refuse(f"{name} contains half of a surrogate pair (\\ud800 to \\udfff), which is not a valid character")
    except (TypeError, ValueError, RecursionError):
        row.refuse(
            f"{name} has a {type(value).__name__} ({repr(value)[:40]}) that cannot be passed to a scoring function; "
            f"write it as text, a number, true or false, or a list or mapping of these, or leave the column out"
        )


def _in_json(value: Any) -> Any:
    """Dates as text, decimals as numbers: tables have them, and JSON does not."""
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError
