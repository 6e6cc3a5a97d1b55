"""A study: variants of a run with other remedies against reward hacking, each over several seeds."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triphase.errors import SettingsError
from triphase.reports.study import StudyRun
from triphase.rewards.registry import needs_reward_model
from triphase.runs.seeds import require_count, seeded, varied_by
from triphase.runs.sweeping import SweepPoint, note_points, plan_points
from triphase.settings.loading import load_settings
from triphase.settings.schema import RunSettings

_KL, _MEMBERS, _ROUNDS = 0.1, 4, 3
_FREE: Mapping[str, str] = {
    "ppo.kl-coefficient": "0",
    "ppo.kl-target": "null",
    "ppo.kl-budget": "null",
    "rounds": "1",
    "variants": "{}",
}
_ONE: Mapping[str, str] = {
    "reward.ensemble.members": "1",
    "reward.ensemble.combine": "mean",
    "reward.length": "free",
}
_ENSEMBLE: Mapping[str, str] = {
    "reward.ensemble.members": str(_MEMBERS),
    "reward.ensemble.combine": "worst",
    "reward.length": "free",
}


@dataclass(frozen=True, slots=True)
class Variant:
    """One variant: how its settings differ from those of the run, and its description."""

    name: str
    changes: Mapping[str, str]
    about: str


@dataclass(frozen=True, slots=True)
class StudyPoint:
    """One run of a study."""

    variant: str
    seed: int
    point: SweepPoint

    @property
    def run(self) -> StudyRun:
        """In the form that the report takes."""
        return StudyRun(self.variant, self.seed, self.point.last_round)


def variants_of(settings: RunSettings, names: Sequence[str] | None) -> list[Variant]:
    """The variants by name: the built-in ones, and the variants of the run itself (`variants`).

    Raises:
        SettingsError: there is none of that name, or it does not apply to the run.
    """
    known = {variant.name: variant for variant in (*_built_in(settings), *_own(settings))}
    chosen = list(dict.fromkeys(names or [each for each in ("none", "kl", "ensemble", "all") if each in known]))
    for name in chosen:
        if name not in known:
            scored = "" if needs_reward_model(settings.ppo.scorer) else "; ensembles need a reward model that scores"
            if settings.reward.taken_from is not None:
                scored = "; reward.from takes the reward model as it is, so that no other can be trained"
            raise SettingsError(f"--variants {name}: there is no such variant; there are {', '.join(known)}{scored}")
    return [known[name] for name in chosen]


def _built_in(settings: RunSettings) -> Iterator[Variant]:
    coefficient = settings.ppo.kl_coefficient or _KL
    kl, alone = {"ppo.kl-coefficient": f"{coefficient:g}"}, dict(_FREE)
    if not needs_reward_model(settings.ppo.scorer):
        yield Variant("none", alone, "no KL penalty")
        yield Variant("kl", {**alone, **kl}, f"KL coefficient {coefficient:g}")
        return
    if settings.reward.taken_from is not None:  # no setting of its training has an effect
        yield Variant("none", alone, "no KL penalty, the reward model of reward.from")
        yield Variant("kl", {**alone, **kl}, f"KL coefficient {coefficient:g}")
        return
    yield Variant("none", {**alone, **_ONE}, "no KL penalty, one reward model")
    yield Variant("kl", {**alone, **_ONE, **kl}, f"KL coefficient {coefficient:g}")
    yield Variant("ensemble", {**alone, **_ENSEMBLE}, f"no KL penalty, the worst of {_MEMBERS} reward models")
    residual = {**alone, **_ONE, "reward.length": "residual"}
    yield Variant("length-residual", residual, "no KL penalty, score corrected for length")
    if settings.labeling.source in ("people", "simulated"):
        each = max(1, settings.ppo.iterations // _ROUNDS)
        about = f"no KL penalty, {_ROUNDS} rounds of {each} iterations, the reward model retrained before each"
        yield Variant("rounds", {**alone, **_ONE, "rounds": str(_ROUNDS), "ppo.iterations": str(each)}, about)
    both = f"KL coefficient {coefficient:g}, the worst of {_MEMBERS} reward models"
    yield Variant("all", {**alone, **_ENSEMBLE, **kl}, both)


def _own(settings: RunSettings) -> Iterator[Variant]:
    for variant, changes in settings.variants.items():
        texts = {f"ppo.{key}": json.dumps(value) for key, value in _flat(changes)}
        yield Variant(variant, {**texts, "variants": "{}"}, ", ".join(f"{key} {text}" for key, text in texts.items()))


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value and key != "scorer":
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def study_points(run: Path, directory: Path, variants: Sequence[Variant], seeds: int) -> list[StudyPoint]:
    """The runs of a study; only their list is written.

    Raises:
        TriphaseError: as in `plan_sweep`.
    """
    require_count(seeds)
    settings = load_settings(run)
    varied = varied_by(settings)
    named, of = list[tuple[str, Mapping[str, str]]](), list[tuple[str, int]]()
    for number in range(seeds):
        changes = seeded(settings, number)
        for variant in variants:
            named.append((f"{variant.name}-seed-{changes[varied]}", {**variant.changes, **changes}))
            of.append((variant.name, int(changes[varied])))
    points = note_points(directory, run.absolute(), plan_points(run, directory, named))
    return [StudyPoint(variant, seed, point) for (variant, seed), point in zip(of, points, strict=True)]
