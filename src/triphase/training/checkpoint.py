"""Checkpoints: written aside, synced, renamed, with a manifest of SHA-256 sums. Safetensors and JSON, never pickle.

They hold adapters, heads, Adam's moments and counters, never the base. One that is damaged or half written is named
and the one before it is used. When a phase is finished some of it goes (`settling`): such a checkpoint is of another
format, so that an older version says so and reads none of it.
"""

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from triphase.errors import RunError
from triphase.records.files import remove_directory
from triphase.settings.loading import version_of_run
from triphase.training.checkpoint_places import kept_steps, place_of
from triphase.training.sealed import find_damage, read_manifest, write_directory

FORMAT, SETTLED = 1, 2
PARAMETER, UNTRAINED, VALUES = "parameter.", "untrained.", "values.json"
TENSORS, WEIGHTS, REST, SHARED = "tensors.safetensors", "weights.safetensors", "rest.safetensors", "shared.json"
"""All tensors; or of a phase that is finished the weights alone; or all but those that other files here hold, and which
file under which name."""
_DEEPEST = 5
"""Most folders from a checkpoint up to its run: `arms/NAME/checkpoints/STEP`."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was kept at a step: tensors by name, and plain values."""

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
    """Write ``parent/STEP`` and remove all but the newest ``keep`` up to it and those of the steps in ``spare``.

    Raises:
        RunError: the disk is full or cannot be written; what was there before stays.
    """
    files = {
        TENSORS: save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}),
        VALUES: json.dumps(dict(values), indent=1, sort_keys=True).encode(),
    }
    target = place_of(parent, step)
    write_directory(target, files, format=FORMAT, step=step)
    steps = kept_steps(parent)
    # Steps after this one are of damaged checkpoints that were passed over: they must not push whole ones out.
    newest = [old for old in steps if old <= step][-keep:]
    for old in steps:
        if old not in newest and old not in spare:
            remove_directory(place_of(parent, old))
    return target


def load_latest(parent: Path) -> Checkpoint | None:
    """The newest whole checkpoint that can be gone on from, or None where there is none.

    Raises:
        RunError: the newest was written by a later version.
    """
    step = newest_whole(parent)
    return None if step is None else load_checkpoint(parent, step)


def newest_whole(parent: Path) -> int | None:
    """The step of the newest whole checkpoint that can be gone on from, or None where there is none.

    Those that are passed over are named in the log.
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
    if written not in (FORMAT, SETTLED):
        known = (version_of_run(folder) for folder in path.parents[:_DEEPEST])
        version = next((each for each in known if each is not None), None)
        that = f"triphase {version}, which began the run" if version else "the version of triphase that wrote it"
        raise RunError(
            f"{path} was written in format {written}, and this version reads format {SETTLED}; continue with {that}, "
            "or begin a new run (--name)"
        )
    return Checkpoint(step, tensors_of(path), json.loads((path / VALUES).read_text()))


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors of a whole checkpoint, in whatever files they are."""
    sums = read_manifest(path)["sha256"]  # what else lies there was left by a process that ended
    own = next(name for name in (TENSORS, WEIGHTS, REST) if name in sums)
    tensors: dict[str, Tensor] = load((path / own).read_bytes())
    if own == REST:
        places = shared_of(path)
        for file in sorted({file for file, _ in places.values()}):
            found = load((path / file).read_bytes())
            tensors |= {name: found[key] for name, (at, key) in places.items() if at == file}
    return tensors


def shared_of(path: Path) -> dict[str, list[str]]:
    """Which tensors of a checkpoint stand in which other file of it, and under which name there."""
    return dict(json.loads((path / SHARED).read_text(encoding="utf-8"))) if (path / SHARED).is_file() else {}


def is_weights_alone(path: Path) -> bool:
    """Whether a whole checkpoint holds weights only, so that nothing can go on from it."""
    return WEIGHTS in read_manifest(path)["sha256"]


def best_of(scores: Mapping[int, float], steps: Collection[int]) -> list[int]:
    """The judged ones of ``steps``, the best first, and of equals the later."""
    return sorted((step for step in scores if step in steps), key=lambda step: (-scores[step], -step))
