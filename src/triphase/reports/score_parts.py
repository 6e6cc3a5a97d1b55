"""The parts of the score of PPO, at its beginning and at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from triphase.monitoring.score_parts import PREFIX


@dataclass(frozen=True, slots=True)
class PartCourse:
    """The mean of one part over the first and the last rollout that has it, in the part's own unit."""

    name: str
    first: float
    last: float


def part_courses(rows: Sequence[Mapping[str, float]]) -> list[PartCourse]:
    """Each part that the metrics of a PPO run have, in their order."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith(PREFIX):
                found.setdefault(name.removeprefix(PREFIX), []).append(value)
    return [PartCourse(name, values[0], values[-1]) for name, values in found.items()]
