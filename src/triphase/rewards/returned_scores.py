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
        raise Unusable(f"returns a mapping of {names} without {TOTAL!r}, the score that is optimized")
    odd = next((name for name in columns if not isinstance(name, str)), None)
    if odd is not None:
        raise Unusable(f"returns parts that cannot be used: {str(odd)[:40]!r} as a name, which is not a string")
    return {
        name: _numbers(values, count, "a score" if name == TOTAL else f"the part {name}", as_trl, may_abstain)
        for name, values in columns.items()
    }


def _numbers(values: Any, count: int, noun: str, as_trl: bool, may_abstain: bool) -> list[float | None]:
    values = values.tolist() if callable(getattr(values, "tolist", None)) else values  # of numpy and of torch
    if not isinstance(values, list | tuple):
        raise Unusable(f"returns {type(values).__name__} for {noun}; expected a list of numbers")
    if len(values) != count:
        raise Unusable(f"returns {len(values)} numbers for {noun} of {count} responses")
    return [
        None if value is None and may_abstain else _number(value, noun, row, as_trl) for row, value in enumerate(values)
    ]


def _number(value: Any, noun: str, row: int, as_trl: bool) -> float:
    plain = value.item() if callable(getattr(value, "item", None)) and not isinstance(value, Real) else value
    is_number = isinstance(plain, Real | Decimal)  # numpy's numbers are, of any width
    if not is_number or (isinstance(plain, bool) and not as_trl):
        hint = (
            "; None (no opinion) is supported only for functions in a sum"
            if value is None and noun == "a score"
            else ""
        )
        shown = repr(value)[:_SHOWN]
        raise Unusable(f"returns {shown} ({type(value).__name__}) as {noun}, which is not a number{hint}", row)
    try:
        number = float(plain)
    except OverflowError:  # an integer larger than any float
        number = math.inf
    if not math.isfinite(number):
        raise Unusable(f"returns {number} as {noun}; a score must be a finite number", row)
    if abs(number) > LARGEST:
        raise Unusable(
            f"returns {number:g} as {noun}, which is too large for PPO; scores must be within ±{LARGEST:g}", row
        )
    return number
