"""Checkpoints: written aside, synced, renamed, with a manifest of SHA-256 sums. Safetensors and JSON, never pickle.

They hold adapters, heads, Adam's moments and counters, never the base. One that is damaged or half written is named
and the one before it is used.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from triphase.errors import RunError

FORMAT = 1
_MANIFEST = "manifest.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was kept at a step: tensors by name, and plain values."""

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]


def save_checkpoint(
    parent: Path, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any], *, keep: int
) -> Path:
    """Write ``parent/STEP`` and remove all but the newest ``keep``.

    Raises:
        RunError: the disk is full or cannot be written; what was there before stays.
    """
    from safetensors.torch import save

    files = {
        "tensors.safetensors": save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}),
        "values.json": json.dumps(dict(values), indent=1, sort_keys=True).encode(),
    }
    target = parent / f"{step:06d}"
    write_directory(target, files, extra={"format": FORMAT, "step": step})
    for old in _steps(parent)[:-keep]:
        shutil.rmtree(parent / f"{old:06d}")
    return target


def load_latest(parent: Path) -> Checkpoint | None:
    """The newest whole checkpoint, or None where there is none.

    Raises:
        RunError: the newest was written by a later version.
    """
    from safetensors.torch import load

    for step in reversed(_steps(parent)):
        path = parent / f"{step:06d}"
        problem = find_damage(path)
        if problem is not None:
            _log.warning("checkpoint %s is damaged (%s); the one before it is used", path, problem)
            continue
        manifest = json.loads((path / _MANIFEST).read_text())
        if manifest["format"] > FORMAT:
            raise RunError(
                f"{path} was written in format {manifest['format']}, this version reads up to {FORMAT}; "
                "install the version that is named in the run's config.yaml"
            )
        tensors = load((path / "tensors.safetensors").read_bytes())
        return Checkpoint(step, tensors, json.loads((path / "values.json").read_text()))
    return None


def write_directory(target: Path, files: Mapping[str, bytes], *, extra: Mapping[str, Any] | None = None) -> None:
    """Write files into a new directory, all or none, with their SHA-256 sums in a manifest. An old one is replaced.

    Raises:
        RunError: the disk is full or cannot be written.
    """
    aside = target.with_name(f".{target.name}.part")
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = json.dumps({**(extra or {}), "sha256": sums}, indent=1, sort_keys=True).encode()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for name, content in {**files, _MANIFEST: manifest}.items():
            with open(aside / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync_directory(aside)
        _replace(aside, target)
        _sync_directory(target.parent)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise RunError(
            f"cannot write {target}: {error.strerror or error}; free some space or mend the permissions, then run the "
            "same command again: nothing that was kept before is lost"
        ) from error


def find_damage(path: Path) -> str | None:
    """What is wrong with a directory that `write_directory` wrote; None where it is whole."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
        for name, expected in manifest["sha256"].items():
            if hashlib.sha256((path / name).read_bytes()).hexdigest() != expected:
                return f"the sum of {name} differs"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{_MANIFEST} cannot be read: {error}"
    return None


def _replace(aside: Path, target: Path) -> None:
    """Rename over an old directory. A kill between the two renames leaves the old one under its aside name."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.rename(target, old)
    os.rename(aside, target)
    shutil.rmtree(old, ignore_errors=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _steps(parent: Path) -> list[int]:
    if not parent.is_dir():
        return []
    return sorted(int(path.name) for path in parent.iterdir() if path.name.isdigit())
