"""The parts of scores: their names, and concatenation of batches."""

import math
from collections.abc import Sequence
from typing import Any

from triphase.monitoring.score_parts import NAME
from triphase.rewards.types import Scores

MOST = 32


def problem_of_names(parts: Any) -> str | None:
    """The error in the names of parts; None if there is none."""
    if not isinstance(parts, dict):
        return f"{type(parts).__name__}; expected a mapping of names to lists"
    wrong = [name for name in parts if not isinstance(name, str) or not NAME.fullmatch(name)]
    if wrong:
        return f"{str(wrong[0])[:40]!r} as a name; use small letters, digits and `_`, beginning with a letter"
    return f"{len(parts)} parts; give at most {MOST}" if len(parts) > MOST else None


def joined(batches: Sequence[Scores]) -> Scores:
    """The scores of batches as those of all answers, in order; a part missing in a batch is NaN there."""
    names = dict.fromkeys(name for batch in batches for name in batch.parts)
    parts = {
        name: tuple(value for batch in batches for value in batch.parts.get(name, (math.nan,) * len(batch.total)))
        for name in names
    }
    return Scores(tuple(score for batch in batches for score in batch.total), parts)
