"""Reads a run directory into records: everything that exists, and None or empty for what does not exist yet."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from triphase.errors import RunError
from triphase.monitoring.metrics import FILE_NAME, Row, read_metrics
from triphase.monitoring.sums import changes
from triphase.records.files import read_json_lines
from triphase.reports.file_shapes import Shape, misfit, require_shape
from triphase.reports.hard_comparisons import HardComparison
from triphase.reports.learning_curve import CurvePoint
from triphase.reports.policy_comparison import JudgedSample, Sample
from triphase.reports.reward_quality import ScoredPair
from triphase.settings.phase_names import PPO, VARIANTS, policy_of
from triphase.settings.renamed import with_new_sections
from triphase.training.artifacts import RANKED, has_trained

SETTINGS = "settings"
"""The key of config.yaml that contains the settings; the others record where the numbers come from."""
PEAK = "peak_gb"
"""The key of timings.json that is not a phase."""
SEEDS = "seeds.json"
"""The runs of a run with other seeds: the varied setting, and their paths relative to the run."""

Record = TypeVar("Record", Sample, JudgedSample, ScoredPair, HardComparison, CurvePoint)


@dataclass(frozen=True, slots=True)
class RunContents:
    """The contents of a run directory.

    Attributes:
        gaps: what is damaged or missing although its phase is finished, one line each.
        varied: the setting in which ``others`` differ: `seed` or `ppo.seed`; empty without such runs.
        others: the runs of this one with other seeds (`triphase run --seeds`).
        directory: where it was read from.
    """

    name: str
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    sft: list[Row]
    reward: list[Row]
    ppo: list[Row]
    variants: Mapping[str, list[Row]]
    mixture: Mapping[str, Any] | None
    labeling: Mapping[str, Any] | None
    calibration: Mapping[str, Any] | None
    pairs: list[ScoredPair]
    samples: list[Sample]
    baselines: Mapping[str, Mapping[str, Sequence[float]]]
    """Policy with its own scorer → that scorer's scores of the SFT policy's samples, by prompt."""
    seconds: Mapping[str, float]
    peak_gb: float | None
    peaks_gb: Mapping[str, float]
    plan: Mapping[str, Any] | None
    hard: Sequence[HardComparison] = ()
    """Held-out judgments that the reward model contradicts, or cannot decide."""
    learning_curve: Sequence[CurvePoint] = ()
    """Reward models on parts of the prompts, if they were trained."""
    gaps: tuple[str, ...] = ()
    varied: str = ""
    others: "tuple[RunContents, ...]" = ()
    directory: Path | None = None

    @property
    def seed(self) -> int:
        """The seed of the run; it seeds the bootstrap too, so that a report can be made again byte for byte."""
        seed = self.settings.get("seed")
        return seed if isinstance(seed, int) else 0

    @property
    def policies(self) -> list[str]:
        """The policies with samples: ``sft``, ``ppo``, then ``arm:NAME`` by name."""
        found = {sample.policy for sample in self.samples}
        return [name for name in ("sft", "ppo") if name in found] + sorted(found - {"sft", "ppo"})

    @property
    def ppo_runs(self) -> dict[str, list[Row]]:
        """The metrics of each PPO run, by its policy: ``ppo``, then ``arm:NAME``."""
        return {PPO: self.ppo, **{policy_of(name): rows for name, rows in self.variants.items()}}

    @property
    def has_gold(self) -> bool:
        """Whether a gold score is known, in training or on held-out prompts."""
        return any(sample.gold is not None for sample in self.samples) or any(
            "ppo/gold_score" in row for row in self.ppo
        )


def read_run(directory: Path, *, with_seeds: bool = True) -> RunContents:
    """Reads ``directory``. Raises RunError if it is not a directory, or a file in it is damaged.

    ``with_seeds``: includes its runs with other seeds, as far as they exist.
    """
    if not directory.is_dir():
        raise RunError(f"{directory}: no such run directory; give one that `triphase run` created")
    config = _mapping(directory / "config.yaml", _yaml, "config") or {}
    timings = _mapping(directory / "timings.json", json.loads, "timings") or {}
    settings = config.get(SETTINGS)
    variants = sorted((directory / VARIANTS).glob(f"*/{FILE_NAME}"))
    varied, others, _ = seeds_of(directory) if with_seeds else ("", [], [])
    return RunContents(
        name=directory.resolve().name,
        settings=settings if isinstance(settings, dict) else {},
        provenance={key: value for key, value in config.items() if key != SETTINGS},
        sft=read_metrics(directory / "sft" / FILE_NAME),
        reward=read_metrics(directory / "reward" / FILE_NAME),
        ppo=read_metrics(directory / "ppo" / FILE_NAME),
        variants={path.parent.name: read_metrics(path) for path in variants},
        mixture=_mapping(directory / "sft" / "mixture.json", json.loads, "mixture"),
        labeling=_mapping(directory / RANKED, json.loads, "labeling"),
        calibration=_mapping(directory / "reward" / "calibration.json", json.loads, "calibration"),
        pairs=read_pairs(directory / "reward" / "heldout.jsonl"),
        samples=_records(directory / "evaluation" / "samples.jsonl", Sample),
        baselines=_baselines(_records(directory / "evaluation" / "judges.jsonl", JudgedSample)),
        seconds={key: float(value) for key, value in timings.items() if key != PEAK and _is_number(value)},
        peak_gb=float(timings[PEAK]) if _is_number(timings.get(PEAK)) else None,
        peaks_gb={key: float(value) for key, value in (timings.get("peaks_gb") or {}).items() if _is_number(value)},
        plan=_mapping(directory / "plan.json", json.loads, "plan"),
        learning_curve=_records(directory / "reward" / "learning-curve.jsonl", CurvePoint),
        hard=_records(directory / "reward" / "hard.jsonl", HardComparison),
        gaps=tuple(gaps_of(directory)),
        varied=varied,
        others=tuple(read_run(other, with_seeds=False) for other in others),
        directory=directory,
    )


def seeds_of(directory: Path) -> tuple[str, list[Path], list[str]]:
    """The runs of a run with other seeds: the varied setting, their paths, and why some are left out.

    Raises:
        RunError: the file that lists them is damaged.
    """
    found = _mapping(directory / SEEDS, json.loads, "seeds")
    if found is None:
        return "", [], []
    own, places, gaps = _settings_of(directory), list[Path](), list[str]()
    for place in (directory / name for name in found["runs"]):
        if place.is_dir() and _alike(own, _settings_of(place)):
            places.append(place)
        else:
            what = "differs from this run in more than its seed" if place.is_dir() else "is gone"
            gaps.append(f"{place.name} {what}, and is left out of the statistics over seeds")
    return found["varied"], places, gaps


def _settings_of(directory: Path) -> Any:
    return (_mapping(directory / "config.yaml", _yaml, "config") or {}).get(SETTINGS)


_DECIDING = ("model", "adapters", "sft", "reward", "ppo", "variants")


def _alike(first: Any, second: Any) -> bool:
    """Whether two runs train alike except for their seeds."""
    sides = [
        {name: side.get(name) for name in _DECIDING} | {"ppo": {**(side.get("ppo") or {}), "seed": None}}
        for side in (each if isinstance(each, dict) else {} for each in (first, second))
    ]
    return sides[0] == sides[1]


def _baselines(judged: Sequence[JudgedSample]) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {}
    for row in judged:
        if row.score is not None:
            found.setdefault(row.judge, {}).setdefault(row.prompt_id, []).append(row.score)
    return found


def gaps_of(directory: Path) -> Iterator[str]:
    """What is damaged or missing although its phase is finished."""
    told = changes(directory)
    yield from told
    yield from seeds_of(directory)[2]
    for phase in [directory / name for name in ("sft", "reward", "ppo")] + sorted((directory / VARIANTS).glob("*")):
        name = f"{phase.relative_to(directory)}/{FILE_NAME}"
        if has_trained(directory, str(phase.relative_to(directory))) and not any(
            line.startswith(f"{name} ") for line in told
        ):
            steps = [int(each.name) for each in (phase / "checkpoints").glob("*") if each.name.isdecimal()]
            held = len(read_metrics(phase / FILE_NAME))
            if held < max(steps, default=1):
                yield f"{name} holds {held} of {max(steps, default=1)} steps: its curves and numbers cover only these"


def read_pairs(path: Path) -> list[ScoredPair]:
    """The held-out comparisons of a `heldout.jsonl`. Raises RunError if a line is damaged."""
    return _records(path, ScoredPair)


def _parsed(path: Path, parse: Callable[[str], Any]) -> Any:
    if not path.exists():
        return None
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror or error}); restore the file, or remove it") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: damaged ({error}); restore the file, or remove it and run its phase again") from None


def _mapping(path: Path, parse: Callable[[str], Any], shape: Shape) -> dict[str, Any] | None:
    value = _parsed(path, parse)
    if value is None:
        return None
    require_shape(path, shape, value)
    return dict(value)


def _yaml(text: str) -> Any:
    """A configuration, with the sections of its settings under their current names."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from None
    settings = found.get(SETTINGS) if isinstance(found, dict) else None
    return {**found, SETTINGS: with_new_sections(settings)} if isinstance(settings, dict) else found


def _records(path: Path, kind: type[Record]) -> list[Record]:
    found = []
    for number, line in enumerate(read_json_lines(path), start=1):
        problem = misfit(kind, line)
        if problem is not None:
            raise RunError(f"{path}, line {number}: {problem}; restore the file, or run its phase again")
        found.append(kind(**{field.name: line[field.name] for field in fields(kind)}))
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
