"""Validation of a run's files before they are reported: the keys that are read, and the types of their values.

Keys that are not read may have any value, and any key may be absent: runs of older versions lack some.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError
from pydantic.types import NonNegativeFloat, NonNegativeInt, PositiveInt

from triphase.errors import RunError
from triphase.records.files import read_json_lines


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore", protected_namespaces=())


class Timings(_Part):
    """timings.json; the other keys are seconds by phase."""

    peak_gb: NonNegativeFloat = 0.0
    peaks_gb: dict[str, NonNegativeFloat] = {}


class KindShape(_Part):
    """One kind of demonstrations."""

    records: NonNegativeInt
    seen: NonNegativeInt
    share: NonNegativeFloat
    weight: NonNegativeFloat


class MixtureShape(_Part):
    """sft/mixture.json"""

    kinds: dict[str, KindShape] = {}


class LabelerShape(_Part):
    """One labeler in labelling.json"""

    labeler: str
    rankings: NonNegativeInt
    tied: FiniteFloat | None = None
    seconds: FiniteFloat | None = None
    agreement: FiniteFloat | None = None
    agreement_low: FiniteFloat | None = None
    agreement_high: FiniteFloat | None = None


class Labeling(_Part):
    """labelling.json"""

    source: str = ""
    rankings: NonNegativeInt = 0
    prompts: NonNegativeInt = 0
    comparisons: NonNegativeInt = 0
    labelers: NonNegativeInt = 0
    agreement: FiniteFloat | None = None
    agreement_low: FiniteFloat | None = None
    agreement_high: FiniteFloat | None = None
    alpha: FiniteFloat | None = None
    noise_ceiling: FiniteFloat | None = None
    by_labeler: list[LabelerShape] = []


class CalibrationShape(_Part):
    """reward/calibration.json"""

    mean: FiniteFloat = 0.0
    standard_deviation: NonNegativeFloat = 0.0
    samples: NonNegativeInt = 0


class PlannedPhase(_Part):
    """One phase of a plan."""

    peak_bytes: NonNegativeFloat
    parts: dict[str, NonNegativeFloat]


class PlanShape(_Part):
    """plan.json"""

    phases: dict[str, PlannedPhase] = {}


class Seeds(_Part):
    """seeds.json"""

    varied: Literal["seed", "ppo.seed"]
    runs: list[str]


class Shown(_Part):
    """The section `evaluation` of the settings."""

    shown_samples: PositiveInt = 1
    gold: str | None = None


class SettingsShape(_Part):
    """The settings that the report reads."""

    seed: int = 0
    evaluation: Shown = Shown()
    model: dict[str, Any] = {}
    labeling: dict[str, Any] = {}
    ppo: dict[str, Any] = {}
    variants: dict[str, dict[str, Any]] = {}


class Config(_Part):
    """config.yaml"""

    settings: SettingsShape = SettingsShape()
    versions: dict[str, str] = {}


Shape = Literal["timings", "mixture", "labeling", "calibration", "plan", "config", "seeds"]
_SHAPES: dict[Shape, type[_Part]] = {
    "timings": Timings,
    "mixture": MixtureShape,
    "labeling": Labeling,
    "calibration": CalibrationShape,
    "plan": PlanShape,
    "config": Config,
    "seeds": Seeds,
}


def require_shape(path: Path, shape: Shape, value: Any) -> None:
    """Refuse a file whose values do not have the types that its readers expect.

    Raises:
        RunError: they are not.
    """
    problem = problem_of(shape, value)
    if problem is not None:
        raise RunError(f"{path}: damaged ({problem}); restore the file, or remove it and run its phase again")


def problem_of(shape: Shape, value: Any) -> str | None:
    """The error in the first value of a wrong type; None if there is none."""
    if shape == "timings" and isinstance(value, dict):
        for phase, seconds in value.items():
            if phase != "peaks_gb" and not _fits(seconds, float):
                return f"{phase} is {str(seconds)[:40]!r}"
    try:
        _SHAPES[shape].model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place}: {first['msg']}" if place else str(first["msg"])
    return None


def shaped_rows(path: Path, record: type[Any]) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines, each with the fields of a dataclass of plain values; empty if it is absent.

    Raises:
        RunError: a line is damaged.
    """
    rows = read_json_lines(path)
    for number, row in enumerate(rows, start=1):
        if (problem := misfit(record, row)) is not None:
            raise RunError(f"{path}:{number}: damaged line ({problem}); restore the file, or remove the line")
    return rows


_LARGEST = 3.4028235e38
"""The maximum of float32, in which all values are computed: a larger one is damage, and sums would be infinite."""


def misfit(record: type[Any], values: Any) -> str | None:
    """The first field of a dataclass that ``values`` lacks, or has with another type; None if there is none."""
    if not isinstance(values, dict):
        return f"a {record.__name__} must be an object"
    for field in fields(record):
        if field.name not in values:
            return f"no {field.name}"
        kinds = get_args(field.type) or (field.type,)
        if not any(_fits(values[field.name], kind) for kind in kinds):
            return f"{field.name} is {str(values[field.name])[:40]!r}"
    return None


def _fits(value: Any, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
    return type(value) is kind
