"""Former names of settings: still accepted, each with a note of its new name and its exact meaning there."""

import logging
from collections.abc import Mapping
from typing import Any

_log = logging.getLogger(__name__)

SECTIONS = {"labelling": "labeling", "arms": "variants"}
"""Old name of a section of the settings → its new name."""

# Of the section ``ppo`` and of each variant: old name → (new name, old value → new value, note).
_PPO: dict[str, tuple[str, dict[Any, Any], str]] = {
    "standardise_advantages": ("standardize_advantages", {True: True, False: False}, "only the spelling changed"),
    "reward": ("scorer", {}, "both set the scorer"),
    "score_limit": ("score_clip", {}, "only the name changed"),
    "standardise_scores": (
        "score_normalization",
        {True: "batch", False: "raw"},
        "true means `batch` (each rollout's scores to standard deviation 1, so that the effective KL coefficient "
        "follows their spread), false means `raw` (scores as they are); the default is now `calibrated`",
    ),
}


def with_new_sections(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run with every section under its current name, and so the settings of each variant.

    Raises:
        ValueError: a section or a setting of a variant is given under both names.
    """
    for old, new in SECTIONS.items():
        if old in values and new in values:
            raise ValueError(f"{old} is the old name of {new}; give {new} alone")
    found = {SECTIONS.get(name, name): value for name, value in values.items()}
    if isinstance(variants := found.get("variants"), Mapping):
        found["variants"] = {
            name: with_new_names(own) if isinstance(own, Mapping) else own for name, own in variants.items()
        }
    return found


def note_old_section(name: str) -> None:
    """Log the new name of a section, if ``name`` is its old one."""
    if name in SECTIONS:
        _log.warning("the settings section %s is now %s; the old name works for one more release", name, SECTIONS[name])


def old_names(ppo: Mapping[str, Any]) -> dict[str, str]:
    """The old names in one section of PPO settings, each with its new one."""
    return {old: new for old, (new, _, _) in _PPO.items() if old in ppo}


def with_new_names(ppo: Mapping[str, Any]) -> dict[str, Any]:
    """One section of PPO settings under the names of the current schema.

    Raises:
        ValueError: an old name is given together with its new one, or has a value that it never allowed.
    """
    values = dict(ppo)
    for old, (new, meanings, _) in _PPO.items():
        if old not in values:
            continue
        value = values.pop(old)
        if new in values:
            if isinstance(value, Mapping) and isinstance(values[new], Mapping) and not values[new].keys() & value:
                values[new] = {**values[new], **value}
                continue
            raise ValueError(f"{old} is the old name of {new}; give {new} alone")
        if not meanings:
            values[new] = value
            continue
        if not isinstance(value, bool):
            raise ValueError(f"{old} is the old name of {new} and must be true or false; write {new} instead")
        values[new] = meanings[value]
    return values


def note_old_names(name: str, ppo: Mapping[str, Any]) -> None:
    """Log which old names are in a section of PPO settings called ``name``, and what each means now."""
    for old, new in old_names(ppo).items():
        _log.warning("%s.%s is now %s.%s: %s", name, old, name, new, _PPO[old][2])
