"""The files that a run reads: their checksums, and which phases read each."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triphase.records.files import fingerprint
from triphase.records.paths import data_files, is_file_name
from triphase.records.source_rows import files_of
from triphase.rewards.importing import require_file, source_of
from triphase.runs.dependence import dependent
from triphase.runs.impact import phases_of
from triphase.settings.data import SourceSettings
from triphase.settings.phase_names import ppo_phase
from triphase.settings.schema import RunSettings

ROLES = ("demonstrations", "prompts", "preferences")


def fingerprints_of(settings: RunSettings) -> dict[str, str]:
    """The checksum of each existing file."""
    data = settings.data
    sources = (*data.demonstrations, *data.prompts, *data.preferences)
    paths = [path for source in sources for path in _named(source)]
    paths += [Path(name) for name in scorer_files(settings)]
    return {
        str(path): fingerprint(path) for path in paths if os.path.isfile(path)
    }  # isfile: False for a name that is too long


def _named(source: SourceSettings) -> list[Path]:
    """The files of a source; a single one under its name in the settings."""
    found = files_of(source)
    return found if len(found) > 1 or os.path.isdir(source.path) else [Path(source.path)]


def require_new_files(old: RunSettings, new: RunSettings) -> None:
    """Require the files that ``new`` names and ``old`` does not; those of finished phases may have been moved away.

    Raises:
        DataError, SettingsError: one does not exist.
    """
    known = {source.path for role in ROLES for source in getattr(old.data, role)}
    for source in (source for role in ROLES for source in getattr(new.data, role)):
        if source.path not in known and is_file_name(source.path, Path()):
            data_files(source.path, Path())
    known = {name for variant in (None, *old.variants) for name in old.ppo_of(variant).scorer.functions}
    for variant in (None, *new.variants):
        section = "ppo" if variant is None else f"variants.{variant}"
        for name in new.ppo_of(variant).scorer.functions:
            if name not in known:
                require_file(name, f"{section}.scorer.function")


def scorer_files(settings: RunSettings) -> dict[str, list[str]]:
    """The file of each scoring function, with the PPO runs that it scores."""
    found: dict[str, list[str]] = {}
    for variant in (None, *settings.variants):
        for path in {source_of(function) for function in settings.ppo_of(variant).scorer.functions} - {None}:
            found.setdefault(str(path), []).append(ppo_phase(variant))
    return found


def roles_of(name: str, settings: RunSettings) -> list[str]:
    """The role of a file in a run: demonstrations, prompts, preferences."""
    return [role for role in ROLES if any(name in map(str, _named(s)) for s in getattr(settings.data, role))]


def changed_files(config: Mapping[str, Any], settings: RunSettings) -> dict[str, list[str]]:
    """The files that differ from those that a run with the configuration ``config`` read, with the phases that read
    them."""
    found, plain = {}, settings.model_dump(mode="json")
    known, now, scorers = config.get("data_fingerprints") or {}, fingerprints_of(settings), scorer_files(settings)
    for name, old in known.items():
        if now.get(name, old) != old:
            keys = [f"data.{role}" for role in roles_of(name, settings)]
            readers = {phase for phase in phases_of(settings) for key in keys if dependent(key, (phase,), plain)}
            found[name] = [phase for phase in phases_of(settings) if phase in {*readers, *scorers.get(name, ())}]
    return found
