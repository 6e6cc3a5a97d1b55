"""A sweep: the branches of a run over a grid of settings, in their own directory with the file that lists them."""

import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triphase.errors import RunError, SettingsError
from triphase.records.files import make_directory, write_json
from triphase.reports.rounds import FOLDER as ROUNDS
from triphase.runs.branching import make_branch
from triphase.runs.dependence import EVALUATION, FREE, LABELING, REWARD, SAMPLING, SFT, is_bound, settings_of
from triphase.runs.differences import differences
from triphase.runs.impact import impact, phases_of, ranks_by_people, require_ppo, require_program
from triphase.runs.shared import require_shared
from triphase.settings.loading import RUN_CONFIG, load_settings
from triphase.settings.overrides import as_scalar
from triphase.settings.phase_names import ppo_phase
from triphase.settings.schema import RunSettings
from triphase.training.artifacts import fingerprint_of, has_left

FILE_NAME = "sweep.json"
_BEFORE_PPO = (SFT, SAMPLING, LABELING, REWARD)
_LONGEST_NAME = 100
_MOST = 1000


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One run of a sweep.

    Attributes:
        path: its directory.
        changes: the settings in which it differs, dotted name → value as text.
        settings: all of them.
        source: the run that it is a branch of: that of the sweep, or an earlier point with the same start.
    """

    path: Path
    changes: Mapping[str, str]
    settings: RunSettings
    source: Path

    @property
    def is_finished(self) -> bool:
        """Whether every step of it is done, and reported."""
        phases = phases_of(self.settings)
        trained = all(has_left(self.path, each) for each in phases if each not in (SAMPLING, LABELING, EVALUATION))
        files = ["summary.json", "report.html", *(["evaluation/samples.jsonl"] if EVALUATION in phases else [])]
        if self.settings.rounds > 1:
            files.append(str(self.last_round.relative_to(self.path) / "summary.json"))
        return trained and all((self.path / name).is_file() for name in files)

    @property
    def last_round(self) -> Path:
        """The run of its last round; with one round, the run itself."""
        rounds = self.settings.rounds
        return self.path if rounds == 1 else self.path / ROUNDS / str(rounds)

    def make(self) -> None:
        """Make the branch if it does not exist yet."""
        if not (self.path / RUN_CONFIG).is_file():
            make_branch(self.source, self.settings)

    def require_own(self) -> None:
        """Require that an existing directory in its place is of this sweep.

        Raises:
            RunError: another run is there, or a link to one.
        """
        if self.path.is_symlink():
            raise RunError(
                f"{self.path}: is a symbolic link, which is never written through; replace it by the run, or "
                "choose another name (--name)"
            )
        if not (self.path / RUN_CONFIG).is_file():
            return
        kept, wanted = (each.model_dump(mode="json") for each in (load_settings(self.path), self.settings))
        for key, old, new in differences(kept, wanted):
            if key not in FREE:
                raise RunError(
                    f"{self.path} belongs to another sweep: {key} is {old!r} there and {new!r} here; choose another "
                    "name (--name)"
                )


def plan_sweep(run: Path, directory: Path, varied: Mapping[str, str]) -> list[SweepPoint]:
    """The points of a grid, ``varied`` being dotted name → values separated by commas; nothing is written yet.

    Raises:
        SettingsError: a setting is unknown or a value not allowed.
        RunError: the run has not finished what a sweep starts from.
    """
    return plan_points(run, directory, _grid(varied))


def plan_points(run: Path, directory: Path, named: Iterable[tuple[str, Mapping[str, str]]]) -> list[SweepPoint]:
    """The points of these names, each with its changes: dotted name → value as text; nothing is written yet.

    Raises:
        SettingsError: a setting is unknown or a value not allowed.
        RunError: the run has not finished what a sweep starts from.
    """
    require_directory(directory)
    require_shared(run)
    base = load_settings(run)
    require_ppo(run, base)
    require_program(base)
    missing = [phase for phase in (SFT, REWARD) if phase in phases_of(base) and not has_left(run, phase)]
    if missing:
        raise RunError(
            f"{run} has not finished {missing[0]}, from which a sweep starts; run `triphase run {run}` first"
        )
    starts, points = {_start_of(base): run}, list[SweepPoint]()
    for name, changes in named:
        place = {"output": as_scalar(str(directory.absolute())), "name": as_scalar(name)}
        settings = load_settings(run, {**changes, **place})
        start = _start_of(settings)
        if start not in starts and ranks_by_people(base, settings) and _has_other_responses(base, settings):
            raise RunError(
                f"{name}: {', '.join(changes)} changes the responses that people ranked; vary "
                f"settings of later phases (ppo.seed instead of seed)"
            )
        points.append(SweepPoint(directory / name, changes, settings, starts.setdefault(start, directory / name)))
    _require_different(points)
    for point in points:
        point.require_own()
    return [_begun(point, run) for point in points]


def trained_in_each(run: Path, points: Sequence[SweepPoint]) -> list[str]:
    """The PPO runs that several points would train alike, since ``run`` has not finished them for all to share."""
    base = load_settings(run)
    own = [point for point in points if point.source == run and not (point.path / RUN_CONFIG).is_file()]
    changed = [impact(base, point.settings, {}) for point in own]
    phases = [ppo_phase(variant) for variant in (None, *base.variants)]
    return [each for each in phases if not has_left(run, each) and sum(each not in found for found in changed) > 1]


def require_directory(directory: Path, run: Path | None = None) -> None:
    """Require a path without a sweep, or with one of ``run``, if given.

    Raises:
        RunError: something else is there, or a sweep of another run.
    """
    if (directory / FILE_NAME).is_file():
        read_points(directory, run)
    elif os.path.lexists(directory):
        raise RunError(f"{directory} already exists and is not a sweep (it has no {FILE_NAME}); rename or remove it")


def _require_different(points: Sequence[SweepPoint]) -> None:
    found: dict[str, str] = {}
    for point in points:
        plain = point.settings.model_dump(mode="json", exclude={"name", "output"})
        same = found.setdefault(json.dumps(plain, sort_keys=True), point.path.name)
        if same != point.path.name:
            raise SettingsError(f"{same} and {point.path.name} are the same run; give each value once")


def _begun(point: SweepPoint, run: Path) -> SweepPoint:
    """The first point of a start is a branch of the run itself."""
    if point.source != point.path:
        return point
    return SweepPoint(point.path, point.changes, point.settings, run)


def note_points(directory: Path, run: Path, points: Sequence[SweepPoint]) -> list[SweepPoint]:
    """Store the list of the points with those of earlier calls; returns the points of this call."""
    make_directory(directory)
    known = read_points(directory, run) if (directory / FILE_NAME).is_file() else {}
    known |= {point.path.name: dict(point.changes) for point in points}
    write_json(directory / FILE_NAME, {"run": str(run.absolute()), "points": known})
    return list(points)


def read_points(directory: Path, run: Path | None = None) -> dict[str, dict[str, str]]:
    """The points of a sweep: name → the settings in which it differs; of ``run``, if given.

    Raises:
        RunError: the list is damaged, or the sweep is of another run.
    """
    path = directory / FILE_NAME
    try:
        kept: Any = json.loads(path.read_text(encoding="utf-8"))
        if run is not None and Path(kept["run"]).name != run.name:
            raise RunError(f"{directory} is a sweep of {kept['run']}, not of {run}; choose another name (--name)")
        found = kept["points"]
        return {str(name): {str(key): str(text) for key, text in changes.items()} for name, changes in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}); remove it, and run the same command again") from None


def _start_of(settings: RunSettings) -> str:
    """The fingerprint of everything that is determined before PPO."""
    plain = settings.model_dump(mode="json")
    return fingerprint_of({phase: settings_of(phase, plain) for phase in _BEFORE_PPO})


def _has_other_responses(base: RunSettings, settings: RunSettings) -> bool:
    sides = [
        {phase: settings_of(phase, each.model_dump(mode="json")) for phase in (SFT, SAMPLING)}
        for each in (base, settings)
    ]
    return sides[0] != sides[1]


def _grid(varied: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """(name of the run, its changes), in the order of the command line."""
    for name in varied:
        key = name.replace("-", "_")  # as the settings spell it
        if key != "rounds" and (key in FREE or is_bound(key)):
            raise SettingsError(f"--{name}: cannot be varied; a sweep varies only settings that affect results")
    if not varied:
        raise SettingsError("a sweep needs a setting and its values: --ppo.kl-coefficient 0.02,0.05")
    lists = {name: _values(name, text) for name, text in varied.items()}
    last = [name.rpartition(".")[2] for name in lists]
    words = {name: word if last.count(word) == 1 else name for name, word in zip(lists, last, strict=True)}
    names = set[str]()
    combinations = list(itertools.islice(itertools.product(*lists.values()), _MOST + 1))
    if len(combinations) > _MOST:
        raise SettingsError(f"a sweep may have at most {_MOST} runs; give fewer values")
    for values in combinations:
        changes = dict(zip(lists, values, strict=True))
        name = "-".join(f"{words[key]}-{text}" for key, text in changes.items())
        name = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:_LONGEST_NAME]
        if name in names:
            raise SettingsError(f"two runs of the sweep would have the name {name}; give each value once")
        names.add(name)
        yield name, changes


def _values(name: str, text: str) -> list[str]:
    """The values separated by commas; a comma inside brackets is part of its value."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    values = [value.strip() for value in found]
    if not all(values):
        raise SettingsError(f"--{name}: has an empty value; write --{name} 0.02,0.05")
    return values
