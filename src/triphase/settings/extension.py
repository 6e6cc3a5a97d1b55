"""Extensions of PPO beyond its original iterations, and the effect on its learning rates."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from triphase.settings.base import Positive, Settings


class ExtensionSettings(Settings):
    """One extension (written by `triphase extend`)."""

    at: Positive
    """The number of iterations before the extension."""
    schedule: Literal["restart", "stretch"] = "stretch"
    """The schedule of the learning rates: `restart` starts it again over the added iterations; `stretch` continues it
    as if it had covered all of them from the start."""


def extension_problem(extensions: Sequence[ExtensionSettings], iterations: int) -> str | None:
    """Why the extensions are invalid; None if they are valid."""
    ends = [0, *(each.at for each in extensions), iterations]
    if all(one < other for one, other in pairwise(ends)):
        return None
    return (
        f"extensions are at {', '.join(map(str, ends[1:-1]))}, and must rise and stay below iterations ({iterations})"
    )


def schedule_span(extensions: Sequence[ExtensionSettings], iterations: int, iteration: int) -> tuple[int, int]:
    """The iterations (first, end) that the schedule of an iteration (from 0) covers."""
    begun = [each.at for each in extensions if each.schedule == "restart" and each.at <= iteration]
    return max(begun, default=0), min(end for end in (*(each.at for each in extensions), iterations) if end > iteration)
