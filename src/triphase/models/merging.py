"""Adapter directories as models: the base that they name is opened, and the update is added to its weights.

    W ← W + (alpha / rank)·B·A

What peft writes opens, and with it the `final/` directories of a run. A directory of an adapter that was trained on
another adapter's directory opens too: the updates are added one after the other.
"""

from pathlib import Path
from typing import Any

import torch

from triphase.errors import ModelError
from triphase.models.files import ADAPTER_CONFIG, named, read_object, tensor_sizes
from triphase.models.opening import opening

_WEIGHTS = "adapter_model.safetensors"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def is_adapter(directory: Path | None) -> bool:
    """Whether a directory holds an adapter and no whole model."""
    return directory is not None and (directory / ADAPTER_CONFIG).is_file()


def has_tokenizer(directory: Path) -> bool:
    """Whether an adapter's directory has a tokenizer of its own."""
    return any((directory / name).is_file() for name in _TOKENIZER_FILES)


def base_of(directory: Path) -> str:
    """The base that an adapter names, after a look at its files.

    Raises:
        ModelError: it is no low-rank adapter of a language model, it names no base, or its file is damaged.
    """
    path = directory / ADAPTER_CONFIG
    config = read_object(path)
    if config.get("task_type") == "SEQ_CLS":
        raise ModelError(
            f"model.name: {directory} is the adapter of a reward model, which writes no text; name a policy's"
        )
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"model.name: {path}: peft_type {str(config.get('peft_type'))[:40]} cannot be merged; only LORA"
        )
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f"model.name: {path}: names no base_model_name_or_path; write there which model it belongs to")
    if not (directory / _WEIGHTS).is_file():
        pickled = " (adapter_model.bin is a pickle, which is never opened)" if _has_pickle(directory) else ""
        raise ModelError(f"model.name: {directory} has no {_WEIGHTS}{pickled}; save the adapter again with peft")
    tensor_sizes(directory / _WEIGHTS)
    return base


@torch.no_grad()
def merged(model: Any, directory: Path) -> Any:
    """``model`` with the adapter of a directory added to its weights for good.

    Raises:
        ModelError: a tensor of the adapter has no place, is missing, or is not finite.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    with opening("the adapter", str(directory)):
        held = load_file(directory / _WEIGHTS)
    broken = [name for name, value in held.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise ModelError(f"model.name: {directory}: {named(broken)}: not finite; use an earlier checkpoint")
    with opening("the adapter", str(directory)):
        wrapped = PeftModel.from_pretrained(model, str(directory))
        wanted = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    missing, unexpected = sorted(set(wanted) - set(held)), sorted(set(held) - set(wanted))
    if missing or unexpected:
        told = [f"it lacks {named(missing)}"] if missing else []
        told += [f"the base has no place for {named(unexpected)}"] if unexpected else []
        raise ModelError(
            f"model.name: {directory}: {' and '.join(told)}; the adapter belongs to another base than the one that "
            f"{ADAPTER_CONFIG} names"
        )
    with opening("the adapter", str(directory)):
        return wrapped.merge_and_unload(safe_merge=True)


def _has_pickle(directory: Path) -> bool:
    return (directory / "adapter_model.bin").is_file()
