"""Converts what a scoring function returned to lists of numbers by name, or reports the error and its answer."""

import math
from collections.abc import Mapping
from decimal import Decimal
from numbers import Real
from typing import Any

TOTAL = "total"
LARGEST = 1e15
"""Squares of larger scores would overflow float32."""
_SHOWN = 60


class Unusable(Exception):
    """The returned value is not a score. ``row`` is the answer of the batch, if the error is of one."""

    def __init__(self, problem: str, row: int | None = None) -> None:
        super().__init__(problem)
        self.row = row


def columns_of(given: Any, count: int, *, as_trl: bool, may_abstain: bool) -> dict[str, list[float | None]]:
    """The scores under ``total``, and each part under its name.

    Args:
        as_trl: true and false count as 1 and 0, as in TRL.
        may_abstain: None for an answer is no opinion, and stays None.

    Raises:
        Unusable: it is not a list of this many numbers.
    """
    columns = given if isinstance(given, Mapping) else {TOTAL: given}
    if TOTAL not in columns:
        names = ", ".join(str(name)[:_SHOWN] for name in list(columns)[:5]) or "nothing"
        raise Unusable(f"gives a mapping of {names} without {TOTAL!r}, the score that is optimized")
    odd = next((name for name in columns if not isinstance(name, str)), None)
    if odd is not None:
        raise Unusable(f"gives parts that cannot be used: {str(odd)[:40]!r} as a name, which is no text")
    return {
        name: _numbers(values, count, "a score" if name == TOTAL else f"the part {name}", as_trl, may_abstain)
        for name, values in columns.items()
    }


def _numbers(values: Any, count: int, noun: str, as_trl: bool, may_abstain: bool) -> list[float | None]:
    values = values.tolist() if callable(getattr(values, "tolist", None)) else values  # of numpy and of torch
    if not isinstance(values, list | tuple):
        raise Unusable(f"gives {type(values).__name__} for {noun}, where a list of numbers is expected")
    if len(values) != count:
        raise Unusable(f"gives {len(values)} numbers for {noun} of {count} answers")
    return [
        None if value is None and may_abstain else _number(value, noun, row, as_trl) for row, value in enumerate(values)
    ]


def _number(value: Any, noun: str, row: int, as_trl: bool) -> float:
    plain = value.item() if callable(getattr(value, "item", None)) and not isinstance(value, Real) else value
    if (isinstance(plain, bool) and not as_trl) or not isinstance(
        plain, Real | Decimal
    ):  # numpy's numbers are, of any width
        hint = "; None, no opinion, is for functions in a sum" if value is None and noun == "a score" else ""
        shown = repr(value)[:_SHOWN]
        raise Unusable(f"gives {shown} ({type(value).__name__}) as {noun}, which is no number{hint}", row)
    try:
        number = float(plain)
    except OverflowError:  # an integer larger than any float
        number = math.inf
    if not math.isfinite(number):
        raise Unusable(f"gives {number} as {noun}; a score is a finite number", row)
    if abs(number) > LARGEST:
        raise Unusable(f"gives {number:g} as {noun}, which PPO cannot count with; scores lie within ±{LARGEST:g}", row)
    return number
