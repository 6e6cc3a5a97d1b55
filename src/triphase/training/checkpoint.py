"""Checkpoints: written aside, synced, renamed, with a manifest of SHA-256 sums. Safetensors and JSON, never pickle.

They hold adapters, heads, Adam's moments and counters, never the base. One that is damaged or half written is named
and the one before it is used.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from triphase.errors import RunError
from triphase.records.files import atomic_directory, fingerprint

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
    write_directory(target, files, format=FORMAT, step=step)
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


@contextmanager
def sealed_directory(target: Path, **facts: Any) -> Iterator[Path]:
    """A directory to fill that takes the place of ``target`` at the end, all or nothing, with a manifest of its sums.

    Raises:
        RunError: the disk is full or cannot be written; what was there before stays.
    """
    with atomic_directory(target) as aside:
        yield aside
        sums = {path.name: fingerprint(path) for path in sorted(aside.iterdir())}
        manifest = json.dumps({**facts, "sha256": sums}, indent=1, sort_keys=True)
        (aside / _MANIFEST).write_text(manifest, encoding="utf-8")


def write_directory(target: Path, files: Mapping[str, bytes], **facts: Any) -> None:
    """Write files into a `sealed_directory`."""
    with sealed_directory(target, **facts) as aside:
        for name, content in files.items():
            (aside / name).write_bytes(content)


def find_damage(path: Path) -> str | None:
    """What is wrong with a directory that `write_directory` wrote; None where it is whole."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
        for name, expected in manifest["sha256"].items():
            if not (path / name).is_file():
                return f"{name} is missing"
            if fingerprint(path / name) != expected:
                return f"the sum of {name} differs"
    except FileNotFoundError:
        return f"{_MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{_MANIFEST} cannot be read: {error}"
    return None


def _steps(parent: Path) -> list[int]:
    if not parent.is_dir():
        return []
    return sorted(int(path.name) for path in parent.iterdir() if path.name.isdigit())
