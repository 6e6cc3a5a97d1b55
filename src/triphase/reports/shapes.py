"""What the files of a run must look like to be reported: the keys that are read, and the types of their values.

Keys that are not read may be whatever they are, and any key may be absent: runs of older versions lack some.
"""

import math
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ConfigDict, FiniteFloat, TypeAdapter, ValidationError, with_config
from pydantic.types import NonNegativeFloat, NonNegativeInt, PositiveInt
from typing_extensions import TypedDict

from triphase.errors import RunError

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


@with_config(_STRICT)
class Timings(TypedDict, total=False):
    """timings.json; the other keys are seconds by phase."""

    peak_gb: NonNegativeFloat
    peaks_gb: dict[str, NonNegativeFloat]


@with_config(_STRICT)
class Kind(TypedDict):
    """One kind of demonstrations."""

    records: NonNegativeInt
    seen: NonNegativeInt
    share: NonNegativeFloat
    weight: NonNegativeFloat


@with_config(_STRICT)
class Mixture(TypedDict, total=False):
    """sft/mixture.json"""

    kinds: dict[str, Kind]


@with_config(_STRICT)
class Labeling(TypedDict, total=False):
    """labelling.json"""

    source: str
    rankings: NonNegativeInt
    prompts: NonNegativeInt
    comparisons: NonNegativeInt
    labelers: NonNegativeInt
    agreement: FiniteFloat | None
    agreement_low: FiniteFloat | None
    agreement_high: FiniteFloat | None
    alpha: FiniteFloat | None
    noise_ceiling: FiniteFloat | None


@with_config(_STRICT)
class Calibration(TypedDict, total=False):
    """reward/calibration.json"""

    mean: FiniteFloat
    standard_deviation: NonNegativeFloat
    samples: NonNegativeInt


@with_config(_STRICT)
class PlannedPhase(TypedDict):
    """One phase of a plan."""

    peak_bytes: NonNegativeFloat
    parts: dict[str, NonNegativeFloat]


@with_config(_STRICT)
class Plan(TypedDict, total=False):
    """plan.json"""

    phases: dict[str, PlannedPhase]


@with_config(_STRICT)
class Shown(TypedDict, total=False):
    """The section `evaluation` of the settings."""

    shown_samples: PositiveInt
    gold: str | None


@with_config(_STRICT)
class Settings(TypedDict, total=False):
    """The settings that the report reads."""

    seed: int
    evaluation: Shown
    model: dict[str, Any]
    labelling: dict[str, Any]
    ppo: dict[str, Any]
    arms: dict[str, dict[str, Any]]


@with_config(_STRICT)
class Config(TypedDict, total=False):
    """config.yaml"""

    settings: Settings
    versions: dict[str, str]


Shape = Literal["timings", "mixture", "labelling", "calibration", "plan", "config"]
_ADAPTERS: dict[Shape, TypeAdapter[Any]] = {
    "timings": TypeAdapter(Timings),
    "mixture": TypeAdapter(Mixture),
    "labelling": TypeAdapter(Labeling),
    "calibration": TypeAdapter(Calibration),
    "plan": TypeAdapter(Plan),
    "config": TypeAdapter(Config),
}


def require_shape(path: Path, shape: Shape, value: Any) -> None:
    """Refuse a file whose values are not of the types that its readers take them for.

    Raises:
        RunError: they are not.
    """
    problem = problem_of(shape, value)
    if problem is not None:
        raise RunError(f"{path}: damaged ({problem}); restore the file, or remove it and run its phase again")


def problem_of(shape: Shape, value: Any) -> str | None:
    """What is wrong with the first value that is not of its type; None where nothing is."""
    if shape == "timings" and isinstance(value, dict):
        for phase, seconds in value.items():
            if phase != "peaks_gb" and not _fits(seconds, float):
                return f"{phase} is {str(seconds)[:40]!r}"
    try:
        _ADAPTERS[shape].validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place}: {first['msg']}" if place else str(first["msg"])
    return None


def misfit(record: type[Any], values: Any) -> str | None:
    """The first field of a dataclass of plain values that ``values`` has not, or has of another type; None without."""
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
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is kind
