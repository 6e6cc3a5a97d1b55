"""The paths of a phase's checkpoints, and which of them are intact. Starts without torch."""

from collections.abc import Iterator
from pathlib import Path

from triphase.records.files import fingerprint
from triphase.training.sealed import MANIFEST, find_damage

CHECKPOINTS = "checkpoints"
"""The directory of a phase that contains them."""
VALUES = "values.json"
"""The file of a checkpoint that holds what is no tensor."""


def place_of(parent: Path, step: int) -> Path:
    """The directory of the checkpoint of a step."""
    return parent / f"{step:06d}"


def kept_steps(parent: Path) -> list[int]:
    """The steps of the checkpoints in ``parent``, oldest first, damaged ones included."""
    if not parent.is_dir():
        return []
    return sorted(int(path.name) for path in parent.iterdir() if path.name.isdigit())


def whole_steps(parent: Path) -> Iterator[int]:
    """The steps of the undamaged checkpoints in ``parent``, newest first; each is read lazily."""
    return (step for step in reversed(kept_steps(parent)) if find_damage(place_of(parent, step)) is None)


def sum_of(parent: Path, step: int) -> str:
    """The SHA-256 checksum of a checkpoint's manifest, which has the checksums of its files."""
    return fingerprint(place_of(parent, step) / MANIFEST)
