"""What a change of settings makes stale: the phases that read them, and those that start from their artifacts."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from triphase.datacheck.agenda import left_out, todo
from triphase.errors import RunError
from triphase.rewards.registry import needs_reward_model
from triphase.runs.dependence import EVALUATION, FREE, LABELING, PPO, REWARD, SAMPLING, SFT, dependent, is_bound
from triphase.runs.differences import differences, is_of_a_server, shown
from triphase.settings.phase_names import ppo_phase, shown_phase
from triphase.settings.ppo import PPOSettings
from triphase.settings.schema import RunSettings

_FIRST = (SFT, SAMPLING, LABELING, REWARD)
_SHOWN = 6


def impact(old: RunSettings, new: RunSettings, changed_data: Mapping[str, Collection[str]]) -> dict[str, str]:
    """The phases of a run with the settings ``new`` that cannot reuse those of one with ``old``, each with the reasons.

    ``changed_data``: file → the phases that read it, of files that have changed since the old run read them.
    """
    found: dict[str, list[str]] = {}
    kept, wanted = old.model_dump(mode="json"), new.model_dump(mode="json")
    phases = phases_of(new)
    for name, readers in changed_data.items():
        for phase in readers:
            found.setdefault(phase, []).append(f"{name} has changed")
    for key, before, now in _changes(kept, wanted):
        for phase in phases:
            if _is_of_ppo(key) and phase not in _FIRST and phase != EVALUATION:
                continue  # compared as a whole, below
            if _reads(phase, key, kept, wanted, old, new):
                found.setdefault(phase, []).append(_changed(key, before, now))
    for variant in (None, *new.variants):
        phase = ppo_phase(variant)
        if variant is not None and variant not in old.variants:
            found.setdefault(phase, []).append("is new")
            continue
        sides = [settings.ppo_of(variant).model_dump(mode="json") for settings in (old, new)]
        for key, before, now in _changes({"ppo": sides[0]}, {"ppo": sides[1]}):
            named = key if variant is None else key.replace("ppo", f"variants.{variant}", 1)
            found.setdefault(phase, []).append(_changed(named, before, now))
    return followed(new, {phase: _in_short(reasons) for phase, reasons in found.items()})


def followed(settings: RunSettings, stale: Mapping[str, str]) -> dict[str, str]:
    """``stale`` with the phases that start from their artifacts."""
    found, present = dict(stale), phases_of(settings)
    for phase in present:
        if phase in found:
            continue
        before = next((each for each in _starts_from(phase, settings) if each in found), None)
        if before is not None:
            found[phase] = f"follows {shown_phase(before)}"
    return {phase: found[phase] for phase in present if phase in found}


def phases_of(settings: RunSettings) -> list[str]:
    """The phases of a run with these settings, in their order; a variant is `arms/NAME`."""
    found: list[str] = []
    for step in todo(settings):
        found += [ppo_phase(variant) for variant in (None, *settings.variants)] if step == PPO else [step]
    return found


def require_ppo(run: Path, settings: RunSettings) -> None:
    """PPO must be a step of the run: branches, extensions and sweeps run what its settings specify.

    Raises:
        RunError: they leave it out; only `triphase ppo` does it.
    """
    if PPO in phases_of(settings):
        return
    why = left_out(settings)[PPO]
    remedy = f"create a run that has it: triphase branch {run} NAME --sft.method none"
    raise RunError(f"PPO is not a step of {run}: {why}; {remedy if settings.data.preferences else 'name prompts'}")


def require_program(settings: RunSettings, *variants: str | None) -> None:
    """PPO (of these variants; of all by default) must not need a reward that only a program has.

    Raises:
        RunError: it does.
    """
    for variant in variants or (None, *settings.variants):
        if settings.ppo_of(variant).scorer.chosen == "object":
            raise RunError(
                "ppo.scorer.kind: the reward of this run is a Python object, and only the "
                "program that created it can continue: call triphase.train_ppo there, under "
                "another name, with the new settings"
            )


def ranks_by_people(*settings: RunSettings) -> bool:
    """Whether people rank in all of these settings: their rankings are data, however they were collected."""
    return all(each.labeling.source == "people" for each in settings)


def _changes(kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The differences that affect a result."""
    for key, before, now in differences(kept, wanted):
        if key not in FREE and not is_bound(key) and not is_of_a_server(key, before, now):
            yield key, before, now


def _is_of_ppo(key: str) -> bool:
    return key.startswith(("ppo.", "variants"))


def _reads(
    phase: str, key: str, kept: Mapping[str, Any], wanted: Mapping[str, Any], old: RunSettings, new: RunSettings
) -> bool:
    if phase == LABELING and key.startswith("labeling.") and ranks_by_people(old, new):
        return False
    if key == "sft.method" and old.sft_method == new.sft_method:
        return False  # an equivalent setting: nothing is fine-tuned either way
    return any(dependent(key, (phase,), settings) is not None for settings in (kept, wanted))


def _starts_from(phase: str, settings: RunSettings) -> tuple[str, ...]:
    match phase:
        case "sft":
            return ()
        case "sampling":
            return (SFT,)
        case "labelling":
            return (SAMPLING,)
        case "reward":
            return (SFT, SAMPLING, LABELING)
        case "evaluation":
            return tuple(phases_of(settings)[:-1])
    variant = phase.rpartition("/")[2] if phase != PPO else None
    return (SFT, REWARD) if _uses_reward_model(settings.ppo_of(variant)) else (SFT,)


def _uses_reward_model(ppo: PPOSettings) -> bool:
    starts = ppo.has_critic and ppo.critic == "adapter" and ppo.critic_start == REWARD
    return needs_reward_model(ppo.scorer) or starts


def _in_short(reasons: Sequence[str]) -> str:
    more = len(reasons) - _SHOWN
    return ", ".join(reasons[:_SHOWN]) + (f", and {more} more" if more > 0 else "")


def _changed(key: str, before: Any, now: Any) -> str:
    return f"{key} was {shown(before)} and is {shown(now)}"
