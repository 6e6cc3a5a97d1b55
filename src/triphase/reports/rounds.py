"""The rounds of a run: what the reward model was worth on the newest policy's samples before and after each refit."""

import json
from pathlib import Path
from typing import Any

from triphase.errors import RunError
from triphase.reports.contents import read_pairs
from triphase.reports.intervals import Interval
from triphase.reports.reward_quality import accuracy

FOLDER = "rounds"
BEFORE = "before.jsonl"
"""Scores of the reward model of the round before, of the held-out rankings of this one; like `heldout.jsonl`."""


def rounds_of(run: Path, seed: int) -> list[dict[str, Any]]:
    """The further rounds of a run that have trained a reward model, in their order, as plain values."""
    found = []
    numbered = [path for path in (run / FOLDER).glob("[0-9]*") if path.name.isdecimal()]  # others are branches of one
    for place in sorted(numbered, key=lambda path: int(path.name)):
        accuracies = accuracies_of(place, seed)
        if accuracies is not None:
            before, after = (_bounds(each) for each in accuracies)
            found.append(
                {"round": int(place.name), "accuracy_before": before, "accuracy_after": after, "ppo": _ppo(place)}
            )
    return found


def rounds_before(place: Path) -> list[Path]:
    """The runs of the rounds before one, the first run of all included; none of what is no further round."""
    if place.parent.name != FOLDER or not place.name.isdecimal():
        return []
    return [place.parent.parent, *(place.parent / str(number) for number in range(2, int(place.name)))]


def round_after(place: Path) -> Path | None:
    """The run of the round behind one, where it has begun."""
    before = rounds_before(place)
    after = place / FOLDER / "2" if not before else place.parent / str(int(place.name) + 1)
    return after if after.is_dir() else None


def accuracies_of(place: Path, seed: int) -> tuple[Interval | None, Interval | None] | None:
    """Accuracy on the held-out rankings of a round, before and after; None before it has trained a reward model."""
    paths = place / "reward" / BEFORE, place / "reward" / "heldout.jsonl"
    if not all(path.is_file() for path in paths):
        return None
    before, after = (accuracy(read_pairs(path), seed=seed) for path in paths)
    return before, after


def _bounds(interval: Interval | None) -> dict[str, float | None] | None:
    return None if interval is None else {"value": interval.value, "low": interval.low, "high": interval.high}


def _ppo(place: Path) -> Any:
    """What the summary of the round says of its policy; None before there is one."""
    path = place / "summary.json"
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))).get("ppo")
    except (OSError, ValueError, TypeError, RecursionError):
        raise RunError(f"{path} is damaged; `triphase report {place}` writes it again") from None
