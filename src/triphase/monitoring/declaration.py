"""How a metric is declared: once, with everything that the writer, the glossary and the tests need to know of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from triphase.settings.schema import RunSettings

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, slots=True)
class Condition:
    """When a metric is there that is not in every line."""

    words: str
    """The condition, after "where" or "at"."""
    allows: Callable[[RunSettings], bool] = lambda settings: True
    """Whether a run with these settings can emit the metric at all."""
    certain: bool = True
    """Whether a run whose settings allow the metric is sure to emit it; otherwise its data decide."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a phase, as it stands in metrics.jsonl."""

    name: str
    """The phase and the noun, with a slash between."""
    unit: str
    """Its unit."""
    formula: str
    """How it is computed."""
    over: str
    """What it is a mean (or sum, or maximum) over."""
    healthy: str
    """What a sound run shows."""
    better: Better = "neither"
    """Which direction is an improvement, all else equal."""
    when: Condition | None = None
    """None: in every line of the phase."""


HELDOUT = Condition("at the end of each fifth of the phase, where records are held out", certain=False)
