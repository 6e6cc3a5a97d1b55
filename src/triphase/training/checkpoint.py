"""Checkpoints: written to a temporary name, synced, renamed, with a manifest of SHA-256 checksums. Never pickle.

They contain adapters, heads, Adam's moments and counters, never the base, as safetensors and JSON. A damaged or
half-written one is reported and the previous one is used. When a phase is finished, redundant parts are removed
(`cleanup`): such a checkpoint has another format, so that an older version reports it and reads none of it.
"""

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from triphase.errors import RunError
from triphase.records.files import remove_directory
from triphase.settings.loading import version_of_run
from triphase.training.checkpoint_places import VALUES, kept_steps, place_of
from triphase.training.sealed import find_damage, read_manifest, write_directory
from triphase.training.weight_differences import unpacked

FORMAT, SETTLED = 1, 3
_EARLIER = 2
"""Of a finished phase, in a version that stored no differences."""
PARAMETER, UNTRAINED = "parameter.", "untrained."
TENSORS, WEIGHTS, REST, SHARED = "tensors.safetensors", "weights.safetensors", "rest.safetensors", "shared.json"
"""All tensors; for a finished phase only the weights; or all tensors except those in other files here. The last maps
tensors to those files; one that is both here and there is stored as a difference."""
_DEEPEST = 5
"""Maximum number of folders from a checkpoint up to its run: `arms/NAME/checkpoints/STEP`."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The contents of a checkpoint: tensors by name, and plain values."""

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]


def save_checkpoint(
    parent: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
    *,
    keep: int,
    spare: Collection[int] = (),
) -> Path:
    """Write ``parent/STEP`` and remove older ones, except the newest ``keep`` and those of the steps in ``spare``.

    Raises:
        RunError: the disk is full or cannot be written; the previous contents stay.
    """
    files = {
        TENSORS: save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}),
        VALUES: json.dumps(dict(values), indent=1, sort_keys=True).encode(),
    }
    target = place_of(parent, step)
    write_directory(target, files, format=FORMAT, step=step)
    steps = kept_steps(parent)
    # Later steps are of damaged checkpoints that were skipped: they must not displace intact ones.
    newest = [old for old in steps if old <= step][-keep:]
    for old in steps:
        if old not in newest and old not in spare:
            remove_directory(place_of(parent, old))
    return target


def load_latest(parent: Path) -> Checkpoint | None:
    """The newest intact checkpoint that can be resumed from, or None if there is none.

    Raises:
        RunError: the newest was written by a later version.
    """
    step = newest_whole(parent)
    return None if step is None else load_checkpoint(parent, step)


def newest_whole(parent: Path) -> int | None:
    """The step of the newest intact checkpoint that can be resumed from, or None if there is none.

    Those that are skipped are named in the log.
    """
    for step in reversed(kept_steps(parent)):
        path = place_of(parent, step)
        problem = find_damage(path)
        if problem is None and not is_weights_alone(path):
            return step
        if problem is None:
            _log.warning("checkpoint %s has only weights; training cannot continue from it", path)
        else:
            _log.warning("checkpoint %s is damaged (%s); the one before it is used", path, problem)
    return None


def load_checkpoint(parent: Path, step: int) -> Checkpoint:
    """The checkpoint of one step.

    Raises:
        RunError: it is damaged, or was written in a format that this version does not read.
    """
    path = place_of(parent, step)
    problem = find_damage(path)
    if problem is not None:
        raise RunError(f"checkpoint {path} is damaged ({problem}); remove it, and an earlier one is used")
    written = read_manifest(path).get("format")
    if written not in (FORMAT, _EARLIER, SETTLED):
        known = (version_of_run(folder) for folder in path.parents[:_DEEPEST])
        version = next((each for each in known if each is not None), None)
        that = f"triphase {version}, which started the run" if version else "the version of triphase that wrote it"
        raise RunError(
            f"{path} was written in format {written}, and this version reads format {SETTLED}; continue with {that}, "
            "or start a new run (--name)"
        )
    return Checkpoint(step, tensors_of(path), json.loads((path / VALUES).read_text()))


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors of an intact checkpoint, whichever files contain them."""
    sums = read_manifest(path)["sha256"]  # other files were left by a process that was killed
    own = next(name for name in (TENSORS, WEIGHTS, REST) if name in sums)
    tensors: dict[str, Tensor] = load((path / own).read_bytes())
    places = shared_of(path) if SHARED in sums else {}
    others = {file: load((path / file).read_bytes()) for file in {place[0] for place in places.values()}}
    for name, (file, key, *alone) in places.items():
        there = others[file][key]
        if name in tensors:
            tensors[name] = unpacked(tensors[name], torch.zeros_like(there) if alone else there)
        elif not alone:
            tensors[name] = there
    return tensors


def shared_of(path: Path) -> dict[str, list[str]]:
    """Which tensors of a checkpoint are in which other file of it, and their names there.

    With a third entry only their shape is: they are compressed by themselves.
    """
    return dict(json.loads((path / SHARED).read_text(encoding="utf-8"))) if (path / SHARED).is_file() else {}


def is_weights_alone(path: Path) -> bool:
    """Whether an intact checkpoint contains only weights, so that nothing can resume from it."""
    return WEIGHTS in read_manifest(path)["sha256"]


def best_of(scores: Mapping[int, float], steps: Collection[int]) -> list[int]:
    """The judged ones of ``steps``, best first; equal ones latest first."""
    return sorted((step for step in scores if step in steps), key=lambda step: (-scores[step], -step))
