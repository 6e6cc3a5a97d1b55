"""Where PPO was extended beyond the iterations that it was begun with, and what its learning rates did then."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from triphase.settings.base import Positive, Settings


class ExtensionSettings(Settings):
    """One extension (`triphase extend` writes it)."""

    at: Positive
    """The iterations that PPO had then."""
    schedule: Literal["restart", "stretch"] = "stretch"
    """What the learning rates did: `restart` begins the schedule again over the added iterations; `stretch` continues
    it as if it had covered all of them from the start."""


def extension_problem(extensions: Sequence[ExtensionSettings], iterations: int) -> str | None:
    """Why the extensions do not fit; None where they do."""
    ends = [0, *(each.at for each in extensions), iterations]
    if all(one < other for one, other in pairwise(ends)):
        return None
    return (
        f"extensions are at {', '.join(map(str, ends[1:-1]))}, and must rise and stay below iterations ({iterations})"
    )


def schedule_span(extensions: Sequence[ExtensionSettings], iterations: int, iteration: int) -> tuple[int, int]:
    """The iterations (first, end) over which the schedule of an iteration (from 0) goes."""
    begun = [each.at for each in extensions if each.schedule == "restart" and each.at <= iteration]
    return max(begun, default=0), min(end for end in (*(each.at for each in extensions), iterations) if end > iteration)
