"""Adapter directories as models: the base that they name is opened, and the update is added to its weights.

    W ← W + (alpha / rank)·B·A

What peft writes opens, and with it the `final/` directories of a run. A directory of an adapter that was trained on
another adapter's directory opens too: the updates are added one after the other.
"""

from pathlib import Path
from typing import Any

import torch

from triphase.errors import ModelError
from triphase.models.chain import ADAPTER_WEIGHTS
from triphase.models.files import ADAPTER_CONFIG, named
from triphase.models.opening import opening


@torch.no_grad()
def merged(model: Any, directory: Path) -> Any:
    """``model`` with the adapter of a directory added to its weights for good.

    Raises:
        ModelError: a tensor of the adapter has no place, is missing, or is not finite.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    with opening("the adapter", str(directory)):
        held = load_file(directory / ADAPTER_WEIGHTS)
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
