"""Runs in a list: the status of each, the values by which to choose among them, and how two differ."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from triphase.errors import RunError
from triphase.monitoring.log import FILE_NAME as LOG
from triphase.monitoring.wording import number, percent
from triphase.reports.contents import read_run
from triphase.reports.summary_file import FILE_NAME as SUMMARY
from triphase.reports.summary_file import read_summary
from triphase.reports.tables import flattened
from triphase.settings.loading import load_settings
from triphase.settings.phase_names import PPO, REWARD, SFT
from triphase.training.artifacts import RANKED, SAMPLED, has_left

CONFIG = "config.yaml"
_LONGEST_LINE = 1 << 16


@dataclass(frozen=True, slots=True)
class Figure:
    """One column of a list: its title, its keys in summary.json, and its format."""

    title: str
    keys: tuple[str, ...]
    text: Callable[[float | None], str] = number


FIGURES = {
    "accuracy": Figure("reward accuracy", ("reward_model", "accuracy"), percent),
    "gold": Figure("gold", ("ppo", "gold_mean")),
    "wins": Figure("preferred to SFT", ("ppo", "gold_win_rate"), percent),
    "gain": Figure("score gain", ("ppo", "proxy_gain")),
    "kl": Figure("KL, nats", ("ppo", "reference_kl")),
    "tokens": Figure("tokens", ("ppo", "mean_length"), partial(number, digits=0)),
    "seconds": Figure("seconds", ("seconds",), partial(number, digits=0)),
}


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run of a list.

    Attributes:
        path: its directory.
        begun: the time of the first line of its log, or else of its config.yaml, in seconds since 1970.
        finished: the phases with an artifact, in their order.
        figures: by the names of `FIGURES`; None if a value is unknown.
        problem: why its values cannot be read.
    """

    path: Path
    begun: float
    finished: tuple[str, ...]
    figures: Mapping[str, float | None]
    problem: str | None = None

    @property
    def stands(self) -> str:
        """The status of the run, in words."""
        if self.problem is not None:
            return self.problem
        if (self.path / "evaluation" / "samples.jsonl").is_file() and (self.path / SUMMARY).is_file():
            return "evaluated"
        if self.finished in ((), (SFT,)) and (self.path / SAMPLED).is_file():
            return "responses ranked" if (self.path / RANKED).is_file() else "responses sampled, not ranked"
        return f"{self.finished[-1]} finished" if self.finished else "begun"


def runs_in(directory: Path) -> list[RunLine]:
    """The runs in a directory, the newest last; a directory that is a run itself is the only one."""
    if (directory / CONFIG).is_file():
        return [line_of(directory)]
    places = sorted(path.parent for path in directory.glob(f"*/{CONFIG}") if path.is_file())
    return sorted((line_of(path) for path in places), key=lambda line: (line.begun, line.path))


def line_of(run: Path) -> RunLine:
    """A run's row in a list."""
    finished = tuple(_finished(run))
    figures: dict[str, float | None] = dict.fromkeys(FIGURES)
    problem = None
    try:
        if os.path.lexists(run / SUMMARY):
            summary = read_summary(run / SUMMARY)
            figures = {name: _figure(summary, figure.keys) for name, figure in FIGURES.items()}
    except RunError as error:
        problem = str(error)
    return RunLine(run, _begun(run), finished, figures, problem)


def _begun(run: Path) -> float:
    """When it began; an extension, or another setting, writes config.yaml again."""
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):  # of a damaged log
        if (run / LOG).is_file():
            with (run / LOG).open("rb") as lines:
                return datetime.fromisoformat(json.loads(lines.readline(_LONGEST_LINE))["time"]).timestamp()
    return (run / CONFIG).stat().st_mtime


def setting_differences(first: Path, second: Path) -> list[tuple[str, str, str]]:
    """(setting, its value in the first run, in the second) where they differ; "–" if a run does not have it.

    Settings that a run's version did not have yet count with their defaults. The names of the runs and their
    directories are ignored, and so are the paths of files: files with the same content are the same.

    Raises:
        TriphaseError: a configuration cannot be read.
    """
    sides = [_settings(run) for run in (first, second)]
    keys = [*sides[0], *(key for key in sides[1] if key not in sides[0])]
    rows = [(key, sides[0].get(key, "–"), sides[1].get(key, "–")) for key in keys if key not in ("name", "output")]
    return [row for row in rows if row[1] != row[2] and {row[1], row[2]} != {"–", "none"}]


def _settings(run: Path) -> dict[str, str]:
    known = read_run(run).provenance.get("data_fingerprints")
    sums = known if isinstance(known, Mapping) else {}
    values = flattened(load_settings(run).model_dump(mode="json"))
    return {key: f"{Path(text).name} ({str(sums[text])[:8]})" if text in sums else text for key, text in values}


def _finished(run: Path) -> Iterator[str]:
    for phase in (SFT, REWARD, PPO):
        if has_left(run, phase):
            yield phase


def _figure(summary: Any, keys: Sequence[str]) -> float | None:
    found = summary
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
