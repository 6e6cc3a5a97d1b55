"""The files of a peft adapter, as bytes."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from triphase.models.roles import SharedModel
from triphase.records.files import disk_errors
from triphase.training.artifacts import read

ADAPTER_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"


def adapter_files(
    shared: SharedModel,
    state: Mapping[str, Tensor],
    base: str,
    tokenizer: Any = None,
    *,
    task: str,
    extra_modules: list[str] | None = None,
) -> dict[str, bytes]:
    """The files that peft reads of an adapter, and the tokenizer if one is given."""
    config = shared.adapters.peft_config(task=task, base_model=base, extra_modules=extra_modules)
    files = {ADAPTER_FILE: tensor_bytes(state), CONFIG_FILE: json.dumps(config, indent=1, sort_keys=True).encode()}
    if tokenizer is None:
        return files
    with disk_errors(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():  # further chat templates are in a directory of their own
                files[str(path.relative_to(folder))] = path.read_bytes()
    return files


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file."""
    content: bytes = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    return content


def tensors_in(directory: Path, name: str) -> dict[str, Tensor]:
    """The tensors of a file of a phase's artifact.

    Raises:
        RunError: it is missing or damaged.
    """
    found: dict[str, Tensor] = load(read(directory, name))
    return found
