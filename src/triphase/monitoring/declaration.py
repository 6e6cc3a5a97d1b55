"""How a metric is declared: once, with everything that the writer, the glossary and the tests need."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from triphase.settings.schema import RunSettings

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, slots=True)
class Condition:
    """The condition of a metric that is not in every line."""

    words: str
    """The condition, after "where" or "at"."""
    allows: Callable[[RunSettings], bool] = lambda settings: True
    """Whether a run with these settings can emit the metric at all."""
    certain: bool = True
    """Whether a run whose settings allow the metric always emits it; otherwise its data decide."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a phase, as written to metrics.jsonl."""

    name: str
    """The phase and the noun, with a slash between."""
    unit: str
    """Its unit."""
    formula: str
    """How it is computed."""
    over: str
    """What it is averaged (or summed, or maximized) over."""
    healthy: str
    """What a normal run shows."""
    better: Better = "neither"
    """Which direction is an improvement, all else equal."""
    when: Condition | None = None
    """None: in every line of the phase."""


HELDOUT = Condition("at the end of each fifth of the phase, where records are held out", certain=False)
