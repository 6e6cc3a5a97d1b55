"""Batches whose loss, gradient or scores were not finite, stored next to the checkpoints for inspection."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from triphase.records.files import write_atomically

DIRECTORY = "bad"
MOST_KEPT = 20


def keep_bad_batch(phase: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path | None:
    """Write ``phase``/bad/STEP.safetensors and STEP.json; None if there are enough of them.

    Raises:
        RunError: the disk is full or cannot be written.
    """
    directory = phase / DIRECTORY
    path = directory / f"{step:06d}.safetensors"
    if not path.exists() and len(list(directory.glob("*.safetensors"))) >= MOST_KEPT:
        return None
    write_atomically(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))
    plain = {name: _plain(value) for name, value in facts.items()}
    write_atomically(
        path.with_suffix(".json"), json.dumps({"step": step, **plain}, indent=1, ensure_ascii=False) + "\n"
    )
    return path


def tensors_of(batch: Any) -> dict[str, Tensor]:
    """The tensors among the fields of a record, by name."""
    found = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
