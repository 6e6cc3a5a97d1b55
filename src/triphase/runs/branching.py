"""A branch: a run that shares what another has finished, as far as its own settings leave that unchanged.

Artifacts of phases (`final`) are shared by reference, with their checksums, and never written to. The store is copied,
since people continue ranking in each; so are the small files that reports read.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triphase.errors import RunError
from triphase.monitoring.sums import FILE_NAME as SUMS
from triphase.monitoring.sums import is_changed, seal
from triphase.records.files import atomic_directory, fingerprint, remove_directory, write_json_lines
from triphase.records.files import read_json_lines as rows_of
from triphase.rewards.judge import FILE as GRADES
from triphase.rewards.weighted import FOLDER as UNITS
from triphase.runs.base_dtype import kept_dtype
from triphase.runs.data_files import changed_files, fingerprints_of, require_new_files
from triphase.runs.dependence import EVALUATION, LABELING, REWARD, SAMPLING, SFT
from triphase.runs.impact import followed, impact, phases_of, ranks_by_people, require_ppo
from triphase.runs.locking import locked
from triphase.runs.provenance import as_yaml, day_begun, provenance, read_config
from triphase.runs.shared import require_shared, share
from triphase.settings.loading import RUN_CONFIG, load_settings
from triphase.settings.phase_names import PPO, policy_of, section_of, shown_phase, variant_in
from triphase.settings.places import expanded
from triphase.settings.schema import RunSettings
from triphase.store import open_store
from triphase.store.copying import copy_file
from triphase.store.database import FILE_NAME as STORE
from triphase.training.artifacts import RANKED, SAMPLED, damage_of, has_left, place_of, taken_of

_NOTES = {SAMPLING: SAMPLED, LABELING: RANKED}
_TRAINED_BEFORE_PPO = (SFT, REWARD)


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch that was made.

    Attributes:
        path: its directory.
        shared: phase → the directory of its artifact.
        copied: what of the store was copied, in words; None if nothing was.
        remaining: phase → why it still has to run, in their order.
    """

    path: Path
    shared: Mapping[str, Path]
    copied: str | None
    remaining: Mapping[str, str]


def make_branch(run: Path, settings: RunSettings, again: Collection[str] = ()) -> Branch:
    """Make the run of ``settings``, which shares what ``run`` has finished and they leave unchanged.

    ``again`` are phases that are not shared although none of their settings has changed.

    Raises:
        RunError: the run is in progress, what would be shared is damaged, or the name of the branch is taken.
        DataError, SettingsError: a file that only the branch names does not exist.
    """
    target = expanded(settings.output) / settings.name
    with locked(run, "a run cannot be branched while a process is working on it: wait for it, or stop it"):
        if target.exists():
            raise RunError(f"{target} already exists; choose another name for the branch")
        require_shared(run)
        config, old = read_config(run / RUN_CONFIG), load_settings(run)
        require_new_files(old, settings)
        again = _known_phases(again, settings)
        if has_left(run, PPO):
            require_ppo(run, settings)
        stale = impact(old, settings, changed_files(config, settings))
        stale = followed(settings, {**dict.fromkeys(again, "is requested (--again)"), **stale})
        shared = {phase: _whole(run, phase) for phase in _sharable(run, settings) if phase not in stale}
        remaining = {
            phase: stale.get(phase, "is not finished there")
            for phase in phases_of(settings)
            if phase in stale or not (phase in shared or (phase in _NOTES and (run / _NOTES[phase]).is_file()))
        }
        fingerprints = {**(config.get("data_fingerprints") or {}), **fingerprints_of(settings)}
        _remove_leftovers(target)
        with atomic_directory(target) as folder:
            for phase, place in shared.items():
                share(folder, target, phase, run, place)
                _copy_figures(run, folder, phase)
            _copy_kept_scores(run, folder, is_scored=any(phase not in _TRAINED_BEFORE_PPO for phase in shared))
            copied = _copy_store(run, folder, stale, is_by_people=ranks_by_people(old, settings))
            kept = _keep_evaluation(run, folder, old, settings, stale, shared)
            if kept and EVALUATION not in stale:
                remaining.pop(EVALUATION, None)
            text = _config(run, settings, fingerprints)
            (folder / RUN_CONFIG).write_text(text, encoding="utf-8")
            seal(folder, [RUN_CONFIG, *_NOTES.values(), *kept])
    return Branch(target, shared, copied, remaining)


def _known_phases(again: Collection[str], settings: RunSettings) -> list[str]:
    known = {shown_phase(phase): phase for phase in phases_of(settings)}
    for phase in again:
        if phase not in known and phase not in known.values():
            raise RunError(f"--again {phase}: this run has no such phase; it has {', '.join(known)}")
    return [known.get(phase, phase) for phase in again]


def _sharable(run: Path, settings: RunSettings) -> list[str]:
    """The trained phases that the run has finished; the branch takes what its settings take from elsewhere."""
    found = []
    for phase in phases_of(settings):
        taken = taken_of(run, phase) if phase in _TRAINED_BEFORE_PPO else None
        if phase not in (*_NOTES, EVALUATION) and has_left(run, phase) and (taken is None or taken.shared):
            found.append(phase)
    return found


def _whole(run: Path, phase: str) -> Path:
    """The directory of a phase's artifact, with intact checksums."""
    place = place_of(run, phase)
    damage = damage_of(place)
    if damage is not None:
        raise RunError(
            f"{place} cannot be shared: {damage}; restore it, remove it and give `triphase run "
            f"{run}`, or repeat {phase} in the branch (--again {phase})"
        )
    return place


def _copy_figures(run: Path, folder: Path, phase: str) -> None:
    """Copy the small files that reports read of a phase, and their sums."""
    names = [f"{phase}/{path.name}" for path in sorted((run / phase).glob("*.json*")) if path.name != "taken.json"]
    for name in names:
        _require_unchanged(run, name)
        (folder / name).write_bytes((run / name).read_bytes())
    seal(folder, names)


def _copy_kept_scores(run: Path, folder: Path, *, is_scored: bool) -> None:
    """Copy the grades of a judge; if a PPO run is shared, also the units of its weighted sum of scorers."""
    for name in (GRADES, *((f"{UNITS}/{path.name}" for path in (run / UNITS).glob("*.json")) if is_scored else ())):
        if (run / name).is_file():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes((run / name).read_bytes())


def _require_unchanged(run: Path, name: str) -> None:
    if is_changed(run, name):
        raise RunError(
            f"{run / name} has changed since its phase ended (damaged or edited; its checksum is "
            f"in {SUMS}), so it is not shared; restore it from a copy"
        )


def _copy_store(run: Path, folder: Path, stale: Mapping[str, str], *, is_by_people: bool) -> str | None:
    """Copy the reusable part of the store, with the notes of the steps that filled it."""
    source = run / STORE
    if not source.is_file() or SFT in stale or SAMPLING in stale:
        return None
    notes = [name for phase, name in _NOTES.items() if phase not in stale and (run / name).is_file()]
    if LABELING not in stale or (is_by_people and stale[LABELING].startswith("is requested")):
        copy_file(source, folder / STORE)
        copied = "prompts, responses and rankings"
    else:
        with open_store(source) as kept, open_store(folder / STORE) as store:
            store.add_prompts(kept.prompts())
            store.add_responses(kept.responses())
        copied = "prompts and responses, without the rankings"
    for name in notes:
        _require_unchanged(run, name)
        (folder / name).write_bytes((run / name).read_bytes())
    return copied


def _keep_evaluation(
    run: Path,
    folder: Path,
    old: RunSettings,
    new: RunSettings,
    stale: Mapping[str, str],
    shared: Mapping[str, Path],
) -> list[str]:
    """Keep the evaluation of the policies that are shared, if it would be made the same way."""
    follows = stale.get(EVALUATION, "follows").startswith("follows")
    if not follows or REWARD in stale or old.ppo.scorer != new.ppo.scorer:
        return []
    if new.ppo.scorer.parts and not (folder / UNITS).is_dir():
        return []  # the first rollout of the branch will give the sum other units
    policies = {"sft"} if SFT in shared else set()
    policies |= {policy_of(variant_in(phase)) for phase in shared if section_of(phase) == PPO}
    kept = []
    for name, key in (("evaluation/samples.jsonl", "policy"), ("evaluation/judges.jsonl", "judge")):
        if (run / name).is_file():
            _require_unchanged(run, name)
            (folder / EVALUATION).mkdir(exist_ok=True)
            write_json_lines(folder / name, [row for row in rows_of(run / name) if row.get(key) in policies])
            kept.append(name)
    return kept


def _config(run: Path, settings: RunSettings, fingerprints: Mapping[str, str]) -> str:
    """As for a run that starts now, but with the date and the base's dtype of the run that it shares with."""
    plain: dict[str, Any] = settings.model_dump(mode="json")
    found = provenance(settings, plain, fingerprints, day_begun(run))
    found["machine"] |= {"dtype": kept_dtype(run)} if kept_dtype(run) else {}
    return as_yaml({**found, "branch_of": {"run": str(run.resolve()), "config": fingerprint(run / RUN_CONFIG)}})


def _remove_leftovers(target: Path) -> None:
    """Remove what a killed process left of this branch."""
    for path in target.parent.glob(f".{target.name[:100]}.????????.part"):
        remove_directory(path)
