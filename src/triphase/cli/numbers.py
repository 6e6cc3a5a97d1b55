"""Integers on the command line: cyclopts rounds `1.5` to 2 silently; here it is refused."""

from collections.abc import Sequence
from typing import Any, get_args

from cyclopts import CoercionError, Token, convert


def converted(wanted: Any, tokens: Sequence[Token]) -> Any:
    """Converts words of the command line to the type of their parameter.

    Raises:
        CoercionError: an integer is expected, and another number is given.
    """
    kinds = get_args(wanted) or (wanted,)
    if int in kinds and float not in kinds:
        for token in tokens:
            if _is_fraction(token.value):
                raise CoercionError(token=token, target_type=int)
    return convert(wanted, tokens)


def _is_fraction(text: str) -> bool:
    try:
        return "." in text and not float(text).is_integer()
    except ValueError:
        return False
