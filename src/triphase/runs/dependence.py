"""Which phases of a run have started, and which settings and files each of them depends on.

Whatever no started phase depends on may still be changed: `adapters.layers` that the model does not support, a data
file that was repaired before anything was trained on it.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from triphase.settings.phase_names import VARIANTS, ppo_phase, section_of
from triphase.settings.schema import RunSettings
from triphase.training.artifacts import RANKED, has_trained, taken_of

SFT, SAMPLING, LABELING, REWARD, PPO, EVALUATION = "sft", "sampling", "labelling", "reward", "ppo", "evaluation"
# May differ between two starts of one run: it changes no result.
FREE = (
    "name",
    "output",
    "threads",
    "parallel.strategy",
    "parallel.timeout_seconds",
    "parallel.cpu_offload",
    "model.recompute_activations",
    "model.capture_decoding",
    "model.packed_decoding",
    "model.offload",
    "trackers",
    "reward.require_better_than_chance",
    "rounds",
)
# These bound memory and change rounding at most: a run that ran out of memory must be able to continue with less.
BOUNDS = ("microbatch_tokens", "trunk_cache_gb", "trunk_file_gb")
_BATCH = "sampling.batch_size"
# The address of a server and its request options may differ too; its presence may not, nor the scorer, nor what is
# sampled when.
_SERVERS = ("rollouts", "scorer")
_SCORER = ("kind", "format", "function", "options", "of")
_SAMPLED = ("ahead", "sampling", "evaluation")
_ON_PROMPTS = (SAMPLING, LABELING, REWARD, PPO, EVALUATION)
_ALL = (SFT, *_ON_PROMPTS)

# The first match applies; settings without one are read by every phase. A variant is a PPO run.
_READ_BY: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("data.demonstrations", (SFT,)),
    ("data.prompts", _ON_PROMPTS),
    ("data.preferences", (LABELING, REWARD)),
    ("sft.from", _ALL),
    ("sft", (SFT,)),
    ("sampling", (SAMPLING,)),
    ("labeling", (LABELING,)),
    ("reward.from", (REWARD, PPO, EVALUATION)),
    ("reward", (REWARD,)),
    ("ppo.temperature", (PPO, EVALUATION)),
    ("ppo.max_response_tokens", (PPO, EVALUATION)),
    ("ppo", (PPO,)),
    ("rollouts.sampling", (SAMPLING,)),
    ("rollouts.evaluation", (EVALUATION,)),
    ("rollouts", (PPO,)),
    ("guards", (PPO,)),
    ("evaluation.gold", (LABELING, PPO, EVALUATION)),
    ("evaluation.shown_samples", ()),
    ("evaluation", (EVALUATION,)),
    ("checkpoints", ()),
)


def begun_phases(run: Path, variants: Collection[str]) -> list[str]:
    """The phases of a run that have left something to resume from, in their order; a variant is `arms/NAME`."""
    trained = [
        phase for phase in (SFT, REWARD, PPO, *(ppo_phase(variant) for variant in variants)) if _has_trained(run, phase)
    ]
    found = {
        SAMPLING: _holds_prompts(run / "labels.sqlite"),
        LABELING: (run / RANKED).exists(),
        EVALUATION: (run / "evaluation" / "samples.jsonl").exists(),
    }
    begun = {*trained, *(phase for phase, is_begun in found.items() if is_begun)}
    return [phase for phase in (*_ALL, *(ppo_phase(variant) for variant in variants)) if phase in begun]


def dependent(key: str, begun: Collection[str], settings: Mapping[str, Any]) -> str | None:
    """The first phase of ``begun`` that depends on the setting ``key``; None if none does.

    It is the evaluation only if that is the only one: an evaluation can be repeated.
    """
    parts = key.split(".")
    if parts[0] == "variants":
        variant = ppo_phase(parts[1]) if len(parts) > 1 else ""
        return variant if variant in begun else None
    readers = _readers(key, settings)
    found = [phase for phase in begun if section_of(phase) in readers]
    return next((phase for phase in found if phase != EVALUATION), found[0] if found else None)


def changeable(run: Path, settings: RunSettings) -> Callable[[str], bool]:
    """Says of a setting whether ``run`` continues with another value of it."""
    begun, values = begun_phases(run, settings.variants), settings.model_dump(mode="json")
    return lambda key: key in FREE or is_bound(key) or dependent(key, begun, values) in (None, EVALUATION)


def _readers(key: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    if key in ("sft.method", "data.demonstrations") and not _is_tuned(settings):
        return _ALL  # the started phases began with the unmodified model
    if key == "data.demonstrations" and _is_mixed(settings):
        return (SFT, PPO)
    if key == "data.preferences" and not (settings.get("data") or {}).get("prompts"):
        return _ON_PROMPTS  # they contain the prompts
    unsampled = (settings.get("labeling") or {}).get("source") == "none"
    if unsampled and key in ("ppo.temperature", "ppo.max_response_tokens"):
        return (REWARD, PPO, EVALUATION)  # the responses for calibration are sampled with these
    return next((phases for prefix, phases in _READ_BY if key == prefix or key.startswith(f"{prefix}.")), _ALL)


def _is_mixed(settings: Mapping[str, Any]) -> bool:
    """Whether PPO or a variant of it has a loss on demonstrations."""
    sections = [settings.get("ppo") or {}, *(settings.get("variants") or {}).values()]
    return any(section.get("sft_mix") for section in sections)


def _is_tuned(settings: Mapping[str, Any]) -> bool:
    """Whether phase 1 makes the reference."""
    sft = settings.get("sft") or {}
    demonstrated = bool((settings.get("data") or {}).get("demonstrations"))
    return sft.get("from") is not None or (sft.get("method") != "none" and demonstrated)


def settings_of(phase: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by dotted name that a phase reads and that affect its artifact; a variant reads its own.

    The names go into fingerprints on disk, where the section `variants` keeps its first name.
    """
    values = dict(flat(settings))
    return {
        f"{VARIANTS}{key.removeprefix('variants')}" if key.startswith("variants.") else key: value
        for key, value in values.items()
        if key not in FREE
        and not is_bound(key)
        and not is_way_to_server(key)
        and dependent(key, (phase,), settings) is not None
    }


def is_way_to_server(key: str) -> bool:
    """Whether a setting is a server's address or a request option."""
    section, _, name = key.rpartition(".")
    return section.rpartition(".")[2] in _SERVERS and name not in (*_SCORER, *_SAMPLED) and not _is_option(key)


def is_bound(key: str) -> bool:
    """Whether a setting bounds memory, and changes rounding at most."""
    return key == _BATCH or (key.rpartition(".")[2] in BOUNDS and not _is_option(key))


def _is_option(key: str) -> bool:
    """Whether it is an option of a scorer: its name is chosen by its author and tells nothing."""
    return ".scorer.options." in key


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as (dotted name, value)."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _has_trained(run: Path, phase: str) -> bool:
    checkpoints = run / phase / "checkpoints"
    taken = taken_of(run, phase)
    if taken is not None and taken.shared:
        return True
    return has_trained(run, phase) or (checkpoints.is_dir() and any(checkpoints.iterdir()))


def _holds_prompts(store: Path) -> bool:
    """Whether prompts are in the store; a store that cannot be read counts as one with prompts."""
    if not store.is_file() or not store.stat().st_size:
        return False
    try:
        connection = sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True)
        try:
            return connection.execute("SELECT 1 FROM prompts LIMIT 1").fetchone() is not None
        finally:
            connection.close()
    except sqlite3.Error as error:
        return "no such table" not in str(error)
