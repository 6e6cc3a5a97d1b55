"""The rounds of a run: the reward model's accuracy on the newest policy's samples before and after each refit."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from triphase.monitoring.wording import number, percent
from triphase.reports.contents import SETTINGS, read_pairs
from triphase.reports.interval_wording import percent_interval
from triphase.reports.intervals import Interval
from triphase.reports.reward_quality import accuracy
from triphase.reports.summary_file import FILE_NAME as SUMMARY
from triphase.reports.summary_file import read_summary

FOLDER = "rounds"
_NUMBER = re.compile(r"[1-9][0-9]{0,5}")
BEFORE = "before.jsonl"
"""Scores by the previous round's reward model of this round's held-out rankings; like `heldout.jsonl`."""


@dataclass(frozen=True, slots=True)
class RoundRow:
    """A further round in the report.

    Attributes:
        before: accuracy of the previous round's reward model on the held-out judgments of this one's responses.
        after: the same of the reward model that was retrained.
        ppo: the section of its own summary about its policy; empty if there is none yet.
        page: its own report, relative to the run; None if there is none yet.
        seconds, peak_gb: its own time and memory, as far as its summary has them.
    """

    number: int
    before: Interval | None
    after: Interval | None
    ppo: dict[str, Any]
    page: str | None
    seconds: float | None = None
    peak_gb: float | None = None

    @property
    def win_rate(self) -> Interval | None:
        """How often its policy's responses are preferred to the SFT policy's."""
        value, low, high = (self.ppo.get(f"gold_win_rate{each}") for each in ("", "_low", "_high"))
        return None if value is None else Interval(value, low, high, 0)

    @property
    def sentence(self) -> str:
        """The newest policy in a sentence, under a verdict about the first round's."""
        gain, kl = (self.ppo.get(key) for key in ("proxy_gain_deviations", "reference_kl"))
        told = [
            f"preferred in {percent_interval(self.win_rate)}" if self.win_rate else "",
            f"a score gain of {number(gain)} standard deviations of the start" if gain is not None else "",
            f"{number(kl, 1)} nats from the reference" if kl is not None else "",
        ]
        said = ", ".join(each for each in told if each) or "not evaluated yet"
        return f"This verdict is about round 1. The newest policy is that of round {self.number}: {said}."


def round_rows(run: Path, seed: int) -> list[RoundRow]:
    """The further rounds of a run that have trained a reward model, for its report."""
    rows = []
    for number_, place in _places(run):
        accuracies = accuracies_of(place, seed)
        if accuracies is not None:
            page = f"{FOLDER}/{number_}/report.html"
            own, page_of = _summary(place), page if (run / page).is_file() else None
            took = own.get("seconds"), own.get("peak_gb")
            rows.append(RoundRow(number_, *accuracies, own.get("ppo") or {}, page_of, *took))
    return rows


def rounds_caption(rows: list[RoundRow]) -> str:
    """The benefit of the refits, in a sentence."""
    known = [(row.before.value, row.after.value) for row in rows if row.before and row.after]
    if not known:
        return "No held-out prompt was ranked in a further round, so the effect of retraining is unknown."
    better = sum(after > before for before, after in known)
    first, last = known[0][0], known[-1][1]
    return (
        f"On the newest policy's responses the reward model was better after {better} of {len(known)} "
        f"refit{'' if len(known) == 1 else 's'}: {percent(first)} before the first, {percent(last)} after the last."
    )


def rounds_of(run: Path, seed: int) -> list[dict[str, Any]]:
    """The further rounds of a run that have trained a reward model, in their order, as plain values."""
    return [
        {
            "round": row.number,
            "accuracy_before": _bounds(row.before),
            "accuracy_after": _bounds(row.after),
            "ppo": row.ppo or None,
            "seconds": row.seconds,
            "peak_gb": row.peak_gb,
        }
        for row in round_rows(run, seed)
    ]


def _places(run: Path) -> list[tuple[int, Path]]:
    """The further rounds that have started, by number."""
    found = ((_number(path), path) for path in (run / FOLDER).glob("[0-9]*"))  # others are branches of one
    return sorted((number, path) for number, path in found if number and path.is_dir() and not path.is_symlink())


def _number(place: Path) -> int | None:
    """The number of a further round from the name of its directory, in our format; None for another name."""
    return int(place.name) if _NUMBER.fullmatch(place.name) and place.name != "1" else None


def newest_place(run: Path) -> Path:
    """The run of the newest round that has started; with one round, the run itself."""
    places = _places(run)
    return places[-1][1] if places else run


def rounds_before(place: Path) -> list[Path]:
    """The runs of the rounds before one, including the first run; empty if it is not a further round.

    An independent run may be called 3, in a folder called rounds: its settings name no earlier round.
    """
    number = _number(place)
    if place.parent.name != FOLDER or number is None or _stands_alone(place):
        return []
    before = [place.parent.parent]
    for each in range(2, number):
        before.append(place.parent / str(each))
        if not before[-1].is_dir():
            return []
    return before


def _stands_alone(place: Path) -> bool:
    """Whether a run is not a round: its settings name no earlier one, and its parent folders are not of a run."""
    own = _begun_with(place)
    return own is not None and not own.get("earlier_rounds") and _begun_with(place.parent.parent) is None


def _begun_with(place: Path) -> dict[str, Any] | None:
    """The settings that a run was started with; None if a directory is not a run, or they cannot be read."""
    try:
        found = yaml.safe_load((place / "config.yaml").read_text(encoding="utf-8"))[SETTINGS]
    except (OSError, ValueError, yaml.YAMLError, RecursionError, KeyError, TypeError):
        return None
    return found if isinstance(found, dict) else None


def title_of(place: Path | None, name: str) -> str:
    """A run's name on its report: for a further round, whose own name is a number, with the run that it belongs to."""
    before = [] if place is None else rounds_before(place)
    return f"{before[0].resolve().name}, round {place.name}" if place is not None and before else name


def round_after(place: Path) -> Path | None:
    """The run of the next round, if it has started."""
    before = rounds_before(place)
    after = place / FOLDER / "2" if not before else place.parent / str(len(before) + 2)
    return after if after.is_dir() else None


def accuracies_of(place: Path, seed: int) -> tuple[Interval | None, Interval | None] | None:
    """Accuracy on the held-out rankings of a round, before and after; None until it has trained a reward model."""
    paths = place / "reward" / BEFORE, place / "reward" / "heldout.jsonl"
    if not all(path.is_file() for path in paths):
        return None
    before, after = (accuracy(read_pairs(path), seed=seed) for path in paths)
    return before, after


def _bounds(interval: Interval | None) -> dict[str, float | None] | None:
    return None if interval is None else {"value": interval.value, "low": interval.low, "high": interval.high}


def _summary(place: Path) -> dict[str, Any]:
    """The summary of the round; empty if there is none yet."""
    path = place / SUMMARY
    return read_summary(path) if path.is_file() else {}
