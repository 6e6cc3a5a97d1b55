"""The `final/` directories: what plain libraries open, with no Triphase installed.

A policy is a peft adapter (`PeftModel.from_pretrained`), or a whole checkpoint after full fine-tuning. A reward model
is a peft adapter for `AutoModelForSequenceClassification` with one label, its score head inside. That class has no
bias, so a plain library reads scores that differ from ours by one constant; only differences mean anything.
"""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from triphase.errors import RunError
from triphase.models.roles import REWARD, SharedModel
from triphase.records.files import disk_errors
from triphase.training.checkpoint import find_damage, sealed_directory, write_directory

ADAPTER_FILE = "adapter_model.safetensors"
_SCORE_KEY = "base_model.model.score.weight"


def is_whole(directory: Path) -> bool:
    """Whether a final directory is there and undamaged."""
    return directory.is_dir() and find_damage(directory) is None


def save_policy(shared: SharedModel, adapter: str, directory: Path, *, with_value_head: bool) -> None:
    """Write an adapter as peft reads it; the critic's head lies beside it, where peft does not look."""
    files = _adapter_files(shared, shared.adapters.state(adapter), task="CAUSAL_LM")
    if with_value_head:
        files["value_head.safetensors"] = _bytes(dict(shared.value_head.linear.state_dict()))
    write_directory(directory, files)


def load_policy(shared: SharedModel, adapter: str, directory: Path) -> None:
    """Read an adapter that `save_policy` wrote.

    Raises:
        RunError: it is missing or damaged.
    """
    shared.adapters.load(adapter, _tensors(directory, ADAPTER_FILE))
    if (directory / "value_head.safetensors").exists():
        shared.value_head.linear.load_state_dict(_tensors(directory, "value_head.safetensors"))


def save_reward_model(shared: SharedModel, directory: Path, calibration: Mapping[str, Any]) -> None:
    """Write the reward adapter with its score head, and how it was calibrated."""
    state = shared.adapters.state(REWARD)
    state[_SCORE_KEY] = shared.score_head.linear.weight.detach().cpu().clone()
    files = _adapter_files(shared, state, task="SEQ_CLS", extra_modules=["score"])
    files["score_head.safetensors"] = _bytes(dict(shared.score_head.linear.state_dict()))
    files["calibration.json"] = json.dumps(dict(calibration), indent=1, sort_keys=True).encode()
    write_directory(directory, files)


def load_reward_model(shared: SharedModel, directory: Path) -> None:
    """Read a reward model that `save_reward_model` wrote.

    Raises:
        RunError: it is missing or damaged.
    """
    state = _tensors(directory, ADAPTER_FILE)
    state.pop(_SCORE_KEY)
    shared.adapters.load(REWARD, state)
    shared.score_head.linear.load_state_dict(_tensors(directory, "score_head.safetensors"))


def save_whole_model(shared: SharedModel, directory: Path) -> None:
    """Write every weight as an ordinary checkpoint (after full fine-tuning or merging).

    Raises:
        RunError: the disk is full or cannot be written; what was there before stays.
    """
    from safetensors import SafetensorError

    with sealed_directory(directory) as folder:
        try:
            with shared.adapters.removed():
                shared.backbone.model.save_pretrained(folder)
        except SafetensorError as error:
            # It is no OSError, but names the number of one.
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else 0, str(error)) from error
        shared.template.tokenizer.save_pretrained(folder)


def _adapter_files(
    shared: SharedModel, state: dict[str, Tensor], *, task: str, extra_modules: list[str] | None = None
) -> dict[str, bytes]:
    config = shared.adapters.peft_config(task=task, base_model=shared.base_name, extra_modules=extra_modules)
    files = {ADAPTER_FILE: _bytes(state), "adapter_config.json": json.dumps(config, indent=1, sort_keys=True).encode()}
    with disk_errors(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory() as folder:
        shared.template.tokenizer.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():  # further chat templates stand in a directory of their own
                files[str(path.relative_to(folder))] = path.read_bytes()
    return files


def _bytes(tensors: dict[str, Tensor]) -> bytes:
    from safetensors.torch import save

    content: bytes = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    return content


def _tensors(directory: Path, name: str) -> dict[str, Tensor]:
    from safetensors.torch import load

    problem = find_damage(directory)
    if problem is not None:
        raise RunError(f"{directory} cannot be used: {problem}; remove it and run its phase again")
    found: dict[str, torch.Tensor] = load((directory / name).read_bytes())
    return found
