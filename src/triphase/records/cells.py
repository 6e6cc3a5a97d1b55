"""Validation of imported values: a CSV cell is converted from text to its type.

Each function takes the row (which knows its file and line), the value's name for messages, and the value. An empty cell
is an absent one. Values that no column of the store can contain are refused here, so that nothing fails later.
"""

import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from triphase.records import texts
from triphase.records.lines import Row, kind_of

LONGEST_ID, LONGEST_NAME, LONGEST_MODEL, LONGEST_KIND, LONGEST_CAMPAIGN = 200, 80, 400, 80, 60
MAIN = "main"
"""The users' name of the main task in place of a campaign; in the store its name is empty."""
MOST = 2**31 - 1
"""The largest integer that every database supports."""
MOST_SEED = 2**63 - 1
"""The largest seed: samplers have seeds of 63 bits."""
MOST_PLACE = 9_999
_LAST_MOMENT = 1e11
_EXACT = 2**53
"""Larger integers are rounded in a float."""
_DIGITS = re.compile(r"[+-]?[0-9]{1,30}")
_TRUTHS = {"true": True, "false": False, "1": True, "0": False}


WINNERS = {
    "a": (1, 2), "1": (1, 2), "model_a": (1, 2), "response_a": (1, 2),
    "b": (2, 1), "2": (2, 1), "model_b": (2, 1), "response_b": (2, 1),
    "tie": (1, 1), "both": (1, 1), "both_good": (1, 1), "both_bad": (1, 1), "tie (bothbad)": (1, 1), "draw": (1, 1),
}  # fmt: skip
"""Places of two responses by the value of a vote. Numbers count from 1, as places do."""


def columns_in(row: Row) -> set[str]:
    """The nonempty columns of a row."""
    return {str(name) for name, value in row.values.items() if not absent(value)}


def absent(value: Any) -> bool:
    """Whether a cell is empty."""
    return value is None or value == ""


def campaign(row: Row, name: str, value: Any) -> str:
    """The name of a campaign in the store: empty for the main task."""
    found = "" if absent(value) else word(row, name, value, LONGEST_CAMPAIGN)
    return "" if found == MAIN else found


def digits(row: Row, name: str, value: Any) -> Any:
    """A whole number as its digits, other values unchanged. 1.0 is 1: so pandas writes it if another cell is empty."""
    if isinstance(value, float):
        if not value.is_integer() or abs(value) > _EXACT:
            row.refuse(f"{name} is the number {value!r}; write text, or a whole number up to 2**53")
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def word(row: Row, name: str, value: Any, longest: int) -> str:
    """A name or an id: text in one line, no longer than the store allows; or a whole number."""
    value = digits(row, name, value)
    if not isinstance(value, str):
        row.refuse(f"{name} must be text, not {kind_of(value)}")
    if not value.strip():
        row.refuse(f"{name} is empty")
    if len(value) > longest:
        row.refuse(f"{name} has {len(value)} characters; use at most {longest}")
    odd = next((one for one in value if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp")), None)
    if odd is not None:
        row.refuse(f"{name} contains the control character U+{ord(odd):04X}; remove it")
    return value


def free_text(row: Row, name: str, value: Any) -> str:
    """Any text that can be stored; it may be empty."""
    if not isinstance(value, str):
        row.refuse(f"{name} must be text, not {kind_of(value)}")
    odd = next((one for one in value if one == "\0" or unicodedata.category(one) == "Cs"), None)
    if odd is not None:
        row.refuse(f"{name} contains U+{ord(odd):04X}, which is not a valid character in text; remove it")
    return value


def number(row: Row, name: str, value: Any, *, least: float = 0.0, most: float = 1e11) -> float:
    """A finite number from ``least`` to below ``most``."""
    found = _float(value)
    if not least <= found < most:
        wanted = f"a number of at least {least:g}, and below {most:g}" if least > -most else "a number"
        row.refuse(f"{name} must be {wanted}, not {_shown(value)}")
    return found


def whole(row: Row, name: str, value: Any, least: int, most: int) -> int:
    """An integer in a range; 2.0 is 2."""
    if isinstance(value, int) and not isinstance(value, bool):
        found = value
    elif isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
        found = int(value)  # a float would round large ones
    else:
        approximate = _float(value)
        if not math.isfinite(approximate) or approximate != int(approximate):
            row.refuse(f"{name} must be a whole number, not {_shown(value)}")
        found = int(approximate)
    if not least <= found <= most:
        row.refuse(f"{name} must be a whole number from {least} to {most}, not {_shown(value)}")
    return found


def truth(row: Row, name: str, value: Any) -> bool:
    """true or false, also as text or as 1 and 0."""
    found = _TRUTHS.get(str(value).strip().lower()) if isinstance(value, bool | int | str) else None
    if found is None:
        row.refuse(f"{name} must be true or false, not {_shown(value)}")
    return found


def moment(row: Row, name: str, value: Any) -> float:
    """Seconds since the epoch: a number of them, or a date in ISO 8601 (without a zone it is UTC)."""
    given = value
    if isinstance(value, str) and not math.isfinite(_float(value)):
        try:
            given = datetime.fromisoformat(value.strip())
        except ValueError:
            row.refuse(f"{name} must be seconds since 1970 or a date like 2026-01-31T12:00:00Z, not {_shown(value)}")
    if isinstance(given, date) and not isinstance(given, datetime):
        given = datetime(given.year, given.month, given.day, tzinfo=UTC)
    if isinstance(given, datetime):
        given = (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()
    found = _float(given)
    if not 0 <= found < _LAST_MOMENT:
        hint = "; is it in milliseconds?" if _LAST_MOMENT <= found < 1e14 else ""
        row.refuse(f"{name} must be a time after 1970, in seconds, not {_shown(value)}{hint}")
    return found


def listed(row: Row, name: str, value: Any, count: int | None = None) -> list[Any]:
    """A list, also one that is written as text in a cell; with ``count`` of exactly this many entries."""
    found = parsed(value)
    if not isinstance(found, list):
        row.refuse(f"{name} must be a list (JSON in a text cell), not {kind_of(value)}")
    if count is not None and len(found) != count:
        row.refuse(f"{name} must be a list of {count}, one for each response, not of {len(found)}")
    return found


def parsed(value: Any) -> Any:
    """The list or object that a text contains in JSON or Python notation; anything else unchanged."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    found = texts.parsed(value)
    return found if isinstance(found, list | dict) else value


def winner(row: Row, models: Sequence[str]) -> tuple[int, int]:
    """The places of the two responses of a vote, by its column ``winner``."""
    value = row.values.get("winner")
    said = "" if isinstance(value, bool) or not isinstance(value, str | int | float) else str(value).strip()
    said = said.removesuffix(".0")
    if said.lower() in WINNERS:
        return WINNERS[said.lower()]
    if said and models[0] != models[1] and said in models:
        return (1, 2) if said == models[0] else (2, 1)
    hint = " (responses are numbered from 1, not 0)" if said == "0" else ""
    row.refuse(f"winner is {str(value)[:40]!r}; write a, b or tie, or 1 or 2{hint}")


def one_of(row: Row, name: str, value: Any, choices: Collection[str]) -> str:
    """One of some words."""
    if not isinstance(value, str) or value not in choices:
        row.refuse(f"{name} is {_shown(value)}; write {' or '.join(choices)}")
    return value


def by_response(row: Row, name: str, value: Any, most: int) -> dict[str, int]:
    """Integers from 1 by response id, such as places."""
    if not isinstance(value, Mapping):
        row.refuse(f"{name} must be an object that maps response ids to numbers, not {kind_of(value)}")
    return {
        word(row, f"an id in {name}", id_, LONGEST_ID): whole(row, f"{name}[{id_[:40]!r}]", each, 1, most)
        for id_, each in value.items()
    }


def named(values: Iterable[Any], most: int = 120) -> str:
    """Names in a row, for a message: in one line, truncated, and without control characters."""
    text = ", ".join(map(str, values))
    return "".join(one if one.isprintable() else "\ufffd" for one in text[:most]) or "none"


def _float(value: Any) -> float:
    """The value as a number; NaN if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return math.nan
    if isinstance(value, str) and "_" in value:
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _shown(value: Any) -> str:
    return repr(value[:40] if isinstance(value, str) else value)[:60]
