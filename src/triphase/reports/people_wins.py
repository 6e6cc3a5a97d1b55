"""Preferences of people, from the comparisons in which a run was a side (`triphase compare … --by people`)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from triphase.errors import RunError
from triphase.records.files import make_directory, write_json
from triphase.records.paths import refuse_links
from triphase.reports.comparison import ComparisonFindings, Labelers
from triphase.reports.file_shapes import misfit
from triphase.reports.interval_wording import is_above, is_below, percent_interval
from triphase.reports.intervals import Interval

DIRECTORY = "people"
"""In a run: a file for each comparison that people judge."""


@dataclass(frozen=True, slots=True)
class PeopleWin:
    """How often people prefer the first of two policies; ``comparison`` is the comparison's directory."""

    comparison: str
    first: str
    second: str
    rate: Interval
    labelers: Labelers

    @property
    def tone(self) -> str:
        """``good`` if the interval shows which of the two people prefer, otherwise ``open``."""
        return "good" if is_above(self.rate, 0.5) or is_below(self.rate, 0.5) else "open"

    @property
    def sentence(self) -> str:
        """The win rate in words that its interval supports, and who judged."""
        first, second, rate = self.first, self.second, self.rate
        if is_below(rate, 0.5):
            first, second, rate = second, first, _turned(rate)
        if self.rate.low is None:
            said = f"one prompt is too few to determine whether people prefer {first} or {second}"
        elif is_above(rate, 0.5):
            said = f"people prefer {first} to {second}: {percent_interval(rate)} of the prompts, ties half"
        else:
            said = (
                f"people do not clearly prefer one: {first} wins against {second} on "
                f"{percent_interval(rate)} of the prompts, ties half, which is consistent with no difference"
            )
        return f"{said[0].upper()}{said[1:]}."

    @property
    def judges(self) -> str:
        """The labelers, and their agreement."""
        who, agreement = self.labelers, self.labelers.agreement
        agreed = (
            f"two of them agree on {percent_interval(agreement)} of the pairs that both ordered"
            if agreement is not None
            else "no two of them ordered the same pair, so their agreement is unknown"
        )
        count = f"{who.rankings} ranking{'' if who.rankings == 1 else 's'} of {self.rate.prompts} prompts"
        return f"{count} by {who.names} {'person' if who.names == 1 else 'people'}, blind; {agreed}."


def keep_people_wins(runs: Sequence[Path], directory: Path, found: ComparisonFindings) -> None:
    """Write the current judgments into each run that is a side, for its report."""
    about = {side.name: side.about if side.about != "a model" else side.name for side in found.sides}
    for criterion in found.criteria:
        judgment = criterion.judgment
        if judgment is None or judgment.labelers is None:
            continue
        who = judgment.labelers
        wins = [
            {
                "first": about[first],
                "second": about[second],
                "rate": _plain(rate),
                "labelers": who.names,
                "rankings": who.rankings,
                "agreement": _plain(who.agreement),
                "directory": str(directory.resolve()),
            }
            for (first, second), rate in criterion.wins.items()
            if who.rankings
        ]
        for run in runs:
            refuse_links(run)
            make_directory(run / DIRECTORY)
            write_json(_place(run / DIRECTORY, directory.resolve()), wins)


def _place(folder: Path, comparison: Path) -> Path:
    """The file of a comparison: by its name, with a number if another comparison of that name has the file."""
    names = (comparison.name if number == 1 else f"{comparison.name}-{number}" for number in count(1))
    return next(path for path in (folder / f"{name}.json" for name in names) if _is_free(path, comparison))


def _is_free(path: Path, comparison: Path) -> bool:
    """Whether a file is of this comparison, or of one that no longer exists (for example because it was moved)."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        owners = {Path(row["directory"]) for row in rows}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return True
    return all(owner == comparison or not owner.is_dir() for owner in owners)


def people_wins(run: Path) -> list[PeopleWin]:
    """The judgments about a run's policies, by comparison.

    Raises:
        RunError: a file of it is damaged.
    """
    found = []
    for path in sorted((run / DIRECTORY).glob("*.json")):
        try:
            found += [_win(path.stem, each) for each in json.loads(path.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            message = f"{path}: damaged ({type(error).__name__}: {error}); run the compare command again, or remove it"
            raise RunError(message) from None
    return found


def _win(comparison: str, row: Mapping[str, Any]) -> PeopleWin:
    for name in ("labelers", "rankings"):
        if type(row[name]) is not int:
            raise TypeError(f"{name} is {str(row[name])[:40]!r}")
    agreement = None if row["agreement"] is None else _interval(row["agreement"])
    who = Labelers(row["labelers"], row["rankings"], agreement)
    return PeopleWin(comparison, str(row["first"]), str(row["second"]), _interval(row["rate"]), who)


def _interval(values: Any) -> Interval:
    if (problem := misfit(Interval, values)) is not None:
        raise TypeError(problem)
    return Interval(**values)


def _plain(interval: Interval | None) -> dict[str, float | int | None] | None:
    if interval is None:
        return None
    return {"value": interval.value, "low": interval.low, "high": interval.high, "prompts": interval.prompts}


def _turned(rate: Interval) -> Interval:
    low, high = (None if bound is None else 1 - bound for bound in (rate.high, rate.low))
    return Interval(1 - rate.value, low, high, rate.prompts)
