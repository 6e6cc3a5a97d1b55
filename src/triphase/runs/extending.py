"""Extends a finished PPO run by more iterations, from its last checkpoint."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from triphase.errors import RunError, SettingsError
from triphase.monitoring.sums import seal
from triphase.records.files import write_atomically
from triphase.reports.rounds import round_after
from triphase.runs.impact import require_ppo, require_program
from triphase.runs.locking import locked
from triphase.runs.provenance import as_yaml, read_config
from triphase.runs.shared import require_shared
from triphase.runs.stale_results import has_results, set_evaluation_aside
from triphase.settings.loading import RUN_CONFIG, load_settings
from triphase.settings.phase_names import PPO, ppo_phase
from triphase.settings.schema import RunSettings
from triphase.settings.source import normalized
from triphase.training.artifacts import has_left, set_aside, taken_of
from triphase.training.checkpoint_places import CHECKPOINTS, whole_steps

Schedule = Literal["restart", "stretch"]


def extend_run(run: Path, variant: str | None, iterations: int, schedule: Schedule) -> str:
    """Extend a finished PPO run; what depends on its policy is set aside. Returns what was done.

    It can be interrupted at any point: the same call, or the run itself, continues.

    Raises:
        RunError: another process works on the run, or there is nothing to continue from.
    """
    with locked(run, "a run cannot be extended while a process is working on it: wait for it, or stop it"):
        settings, phase = load_settings(run), ppo_phase(variant)
        require_shared(run)
        require_ppo(run, settings)
        require_program(settings, variant)
        ppo, newest = settings.ppo_of(variant), _newest(run, phase)
        if ppo.extensions and ppo.iterations == iterations and newest is not None:
            if newest < iterations:
                return f"{phase} continues from iteration {newest} to {iterations}"
            if not has_left(run, phase) or not has_results(run):
                return f"{phase} has its {iterations} iterations; the later steps continue"
        if iterations <= ppo.iterations:
            raise RunError(f"{phase} of {run} has {ppo.iterations} iterations; give more, not {iterations}")
        _require_end(run, phase, ppo.iterations)
        set_aside(run, phase)
        set_evaluation_aside(run)
        changed = _extended(settings, variant, iterations, schedule)
        config = {**read_config(run / RUN_CONFIG), "settings": changed.model_dump(mode="json")}
        write_atomically(run / RUN_CONFIG, as_yaml(config))
        seal(run, [RUN_CONFIG])
    rates = {
        "restart": f"the learning-rate schedule restarts over {iterations - ppo.iterations} iterations",
        "stretch": f"the learning-rate schedule is stretched over all {iterations} iterations",
    }
    return (
        f"{phase} continues from iteration {ppo.iterations} to {iterations}; {rates[schedule]} (--schedule {schedule})"
    )


def _newest(run: Path, phase: str) -> int | None:
    """The newest whole checkpoint."""
    return next(whole_steps(run / phase / CHECKPOINTS), None)


def _require_end(run: Path, phase: str, iterations: int) -> None:
    """Require the checkpoint after the last iteration, of a PPO run that completed it."""
    taken, after = taken_of(run, phase), round_after(run)
    if phase == PPO and after is not None:
        raise RunError(
            f"{phase} of {run} is where {after} continues from; extend the last round, or create "
            f"a run with another setting: "
            f"triphase branch {run} NAME"
        )
    if not has_left(run, phase) and _newest(run, phase) is None:
        raise RunError(f"{run} has not finished {phase}; run `triphase run {run}` first")
    if taken is not None:
        raise RunError(f"{phase} of {run} is shared, so its checkpoints are elsewhere; extend {taken.origin}")
    kept = sorted(whole_steps(run / phase / CHECKPOINTS))
    if iterations not in kept:
        ended = _ending(run, phase, kept[-1]) if kept else None
        if ended is not None:
            raise RunError(
                f"{phase} of {run} ended at iteration {kept[-1]}: {ended}; more iterations "
                f"change nothing. Create a run with another setting: triphase branch {run} NAME"
            )
        there = f"kept are {', '.join(map(str, kept))}" if kept else "none is kept"
        raise RunError(
            f"{run / phase}/checkpoints: the last checkpoint, after iteration {iterations}, is missing or damaged "
            f"({there}); finish the run (triphase run {run}), or create another: triphase branch {run} NAME"
        )
    ended = _ending(run, phase, iterations)
    if ended is not None:
        raise RunError(
            f"{phase} of {run} ended: {ended}; create a run with another setting: triphase branch {run} NAME"
        )


def _ending(run: Path, phase: str, step: int) -> str | None:
    values = json.loads((run / phase / "checkpoints" / f"{step:06d}" / "values.json").read_text(encoding="utf-8"))
    found = values.get("values", {}).get("finished")
    return None if found is None else str(found)


def _extended(settings: RunSettings, variant: str | None, iterations: int, schedule: Schedule) -> RunSettings:
    """The settings with more iterations of one PPO run; the others keep theirs."""
    values: dict[str, Any] = settings.model_dump(mode="json")
    before = settings.ppo_of(variant).model_dump(mode="json")
    more = {
        "iterations": iterations,
        "extensions": [*before["extensions"], {"at": before["iterations"], "schedule": schedule}],
    }
    if variant is not None:
        values["variants"][variant] = {**values["variants"][variant], **more}
    else:
        kept: Mapping[str, Any] = {name: values["ppo"][name] for name in more}
        values["variants"] = {name: {**kept, **changes} for name, changes in values["variants"].items()}
        values["ppo"] = {**values["ppo"], **more}
    return RunSettings.model_validate(values)


def target_of(changes: Mapping[str, str]) -> tuple[str | None, int]:
    """The PPO run that `--ppo.iterations N` or `--variants.NAME.iterations N` refers to (None for the main one), and N.

    Raises:
        SettingsError: it is neither.
    """
    said = "give --ppo.iterations 40, or --variants.NAME.iterations 40"
    if len(changes) != 1:
        raise SettingsError(f"extend takes only the iterations of one PPO run; {said}")
    name, text = next(iter(changes.items()))
    parts = [str(key) for key in normalized(tuple(name.split(".")))]
    if parts[-1] != "iterations" or not (
        (parts[0] == "ppo" and len(parts) == 2) or (parts[0] == "variants" and len(parts) == 3)
    ):
        raise SettingsError(f"--{name}: extend changes only iterations; {said}; for other settings: triphase branch")
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise SettingsError(f"--{name}: {text[:40]} is not allowed; it must be a whole number above 0")
    return (parts[1] if parts[0] == "variants" else None), int(text)
