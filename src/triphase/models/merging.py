"""Adapter directories as models: the base that they name is opened, and the update is added to its weights.

    W ← W + (alpha / rank)·B·A

Adapters written by peft can be opened, and so can the `final/` directories of a run. A directory of an adapter that was
trained on another adapter's directory can be opened too: the updates are added one after the other.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from triphase.errors import ModelError
from triphase.models.chain import ADAPTER_WEIGHTS
from triphase.models.files import ADAPTER_CONFIG, named
from triphase.models.opening import opening


@torch.no_grad()
def merged(model: Any, directory: Path) -> Any:
    """``model`` with the adapter of a directory merged into its weights.

    Raises:
        ModelError: a tensor of the adapter has no counterpart, is missing, has another shape, or is not finite.
    """
    from peft import PeftModel

    check_adapter(model, directory)
    with opening("the adapter", str(directory)):
        return PeftModel.from_pretrained(model, str(directory)).merge_and_unload(safe_merge=True)


def check_adapter(model: Any, directory: Path) -> None:
    """Refuse an adapter that does not fit ``model``, whose tensors may have shapes only.

    Raises:
        ModelError: as in `merged`.
    """
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict

    with opening("the adapter", str(directory)):
        held = load_file(directory / ADAPTER_WEIGHTS)
    broken = [name for name, value in held.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise ModelError(f"model.name: {directory}: {named(broken)}: not finite; use an earlier checkpoint")
    with opening("the adapter", str(directory)):
        wrapped: Any = get_peft_model(model, PeftConfig.from_pretrained(str(directory)))
        wanted = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
        wrapped.unload()
    missing, unexpected = sorted(set(wanted) - set(held)), sorted(set(held) - set(wanted))
    if missing or unexpected:
        told = [f"it lacks {named(missing)}"] if missing else []
        told += [f"the base has no place for {named(unexpected)}"] if unexpected else []
        raise ModelError(
            f"model.name: {directory}: {' and '.join(told)}; the adapter belongs to another base than the one that "
            f"{ADAPTER_CONFIG} names"
        )
    for name, value in held.items():
        if ".lora_" in name and value.shape != wanted[name].shape:
            raise ModelError(
                f"model.name: {directory}: {name} has the shape {tuple(value.shape)}, and with this base and "
                f"{ADAPTER_CONFIG} it must have {tuple(wanted[name].shape)}; the base or the rank (r) is another one"
            )
