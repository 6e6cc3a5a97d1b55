"""A weighted sum of scorers: total = Σ weight · (part − center) / scale.

Center and scale of a part are the mean and deviation of its scores in the first rollout, which the policy writes before
it is trained, so that a weight means the same whatever units the parts have. They are stored in the run, so that a
resumed run and the evaluation use the same units; a part with ``calibrate: false`` is used unchanged (0 and 1). A part
whose scores do not differ there keeps its own unit. The parts in the metrics are in their own units.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from triphase.errors import RunError
from triphase.records.files import write_json
from triphase.rewards.registry import opened
from triphase.rewards.types import Answer, Scorer, ScorerContext, Scores
from triphase.settings.scorer import ScorerSettings, SumPart

FOLDER = "score_units"
Unit = tuple[float, float]
"""Center and scale."""


def units_file(settings: ScorerSettings, run: Path) -> Path:
    """The file of a sum's units in a run; another sum has another file."""
    text = json.dumps([[part.name, list(part.settings.identity)] for part in settings.parts], sort_keys=True)
    return run / FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


class WeightedScorer(Scorer):
    """Scores by several scorers."""

    def __init__(self, context: ScorerContext) -> None:
        self._parts = context.settings.parts
        self.name = f"the sum of {', '.join(part.name for part in self._parts)}"
        self._file = None if context.directory is None else units_file(context.settings, context.directory)
        self._begins = context.begins
        self._units: dict[str, Unit] | None = None
        with ExitStack() as stack:
            self._scorers: Mapping[str, Scorer] = {
                part.name: stack.enter_context(opened(_context_of(part, context))) for part in self._parts
            }
            self._stack = stack.pop_all()

    def score(self, answers: Sequence[Answer]) -> Scores:
        """See Scorer.

        Raises:
            RunError: its units are those of a first rollout that has not taken place.
        """
        if not answers:
            return Scores(())
        scored = {name: scorer.score(answers) for name, scorer in self._scorers.items()}
        found = {name: scores.total for name, scores in scored.items()}
        shown = {**_parts_of_parts(scored), **found}
        monitors = {name: values for scores in scored.values() for name, values in scores.monitors.items()}
        units = self._units_with(found)
        if units is None:
            return Scores((math.nan,) * len(answers), shown, monitors)
        totals = tuple(self._total({name: found[name][row] for name in found}, units) for row in range(len(answers)))
        return Scores(totals, shown, monitors)

    def require_columns(self, columns: Sequence[str]) -> None:
        """See Scorer."""
        for scorer in self._scorers.values():
            scorer.require_columns(columns)

    def close(self) -> None:
        """Close the parts."""
        self._stack.close()

    def _total(self, scores: Mapping[str, float], units: Mapping[str, Unit]) -> float:
        """NaN if a part has no score, or all have no opinion; one without an opinion counts nothing."""
        heard = [
            part for part in self._parts if not (self._scorers[part.name].may_abstain and math.isnan(scores[part.name]))
        ]
        if not heard:
            return math.nan
        return sum(part.weight * (scores[part.name] - units[part.name][0]) / units[part.name][1] for part in heard)

    def _units_with(self, found: Mapping[str, Sequence[float]]) -> Mapping[str, Unit] | None:
        """The units of the run, computed from these scores if it has none; None if they are uninformative."""
        if self._units is None and self._file is not None and self._file.is_file():
            self._units = _read(self._file, [part.name for part in self._parts])
        if self._units is None:
            if self._file is not None and not self._begins:
                raise RunError(f"{self._file}: the units of {self.name} come from PPO's first rollout; run PPO first")
            units = {part.name: _unit_of(found[part.name]) if part.calibrate else (0.0, 1.0) for part in self._parts}
            if any(math.isnan(center) for center, _ in units.values()):
                return None
            if self._file is not None:
                write_json(self._file, {name: {"center": c, "scale": s} for name, (c, s) in units.items()})
                self._units = units
            return units
        return self._units


def open_scorer(context: ScorerContext) -> WeightedScorer:
    """The sum in the settings."""
    return WeightedScorer(context)


def _context_of(part: SumPart, context: ScorerContext) -> ScorerContext:
    return replace(context, settings=part.settings, setting=f"{context.setting}.of.{part.name}", is_part=True)


def _parts_of_parts(scored: Mapping[str, Scores]) -> dict[str, tuple[float, ...]]:
    """What a function or server returns besides its score, under the name of the part and its own: `NAME/PART`."""
    return {f"{name}/{inner}": values for name, scores in scored.items() for inner, values in scores.parts.items()}


def _unit_of(scores: Sequence[float]) -> Unit:
    """Mean and population deviation of the finite scores; 1 if they do not differ."""
    known = [score for score in scores if math.isfinite(score)]
    if not known:
        return math.nan, 1.0
    center = math.fsum(known) / len(known)
    spread = math.sqrt(math.fsum((score - center) ** 2 for score in known) / len(known))
    return center, spread if spread > 1e-6 * max(map(abs, known)) else 1.0


def _read(path: Path, names: Sequence[str]) -> dict[str, Unit]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {name: (_number(kept[name]["center"]), _number(kept[name]["scale"], above=0.0)) for name in names}
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise RunError(
            f"{path}: the units of a sum of scores cannot be read ({type(error).__name__}); restore it, or choose "
            "another name (--name)"
        ) from None


def _number(value: Any, *, above: float = -math.inf) -> float:
    if type(value) not in (int, float) or not math.isfinite(float(value)) or value <= above:
        raise ValueError
    return float(value)
