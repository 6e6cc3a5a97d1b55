"""Adapter directories as models: the base that they name is opened, and the update is added to its weights.

    W ← W + (alpha / rank)·B·A

Adapters written by peft can be opened, and so can the `final/` directories of a run. A directory of an adapter that was
trained on another adapter's directory can be opened too: the updates are added one after the other.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from triphase.errors import ModelError
from triphase.models.chain import ADAPTER_WEIGHTS
from triphase.models.files import ADAPTER_CONFIG, named
from triphase.models.pretrained import opening


@torch.no_grad()
def merged(model: Any, directory: Path) -> Any:
    """``model`` with the adapter of a directory merged into its weights.

    Raises:
        ModelError: a tensor of the adapter has no counterpart, is missing, has another shape, or is not finite.
    """
    from peft import PeftModel

    check_adapter(model, directory)
    _untie(model, load_file(directory / ADAPTER_WEIGHTS))
    with opening("the adapter", str(directory)):
        return PeftModel.from_pretrained(model, str(directory)).merge_and_unload(safe_merge=True)


def _untie(model: Any, held: Mapping[str, torch.Tensor]) -> None:
    """Give input and output embedding a matrix each if the adapter updates one: merged, it would change both."""
    if _updates_a_tied_embedding(model, held):
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False


def _updates_a_tied_embedding(model: Any, held: Mapping[str, torch.Tensor]) -> bool:
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is not embedding.weight:
        return False
    name = next(name for name, module in model.named_modules() if module is head)
    return any(".lora_embedding_" in key or f".{name}.lora_" in key for key in held)


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
        config: Any = PeftConfig.from_pretrained(str(directory))
        config.init_lora_weights = False  # some initializations change the base
        wrapped: Any = get_peft_model(model, config)
        wanted = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
        # peft stores the base's own embedding beside an update of it.
        allowed = get_peft_model_state_dict(wrapped, save_embedding_layers=True)
        wrapped.unload()
    missing, unexpected = sorted(set(wanted) - set(held)), sorted(set(held) - set(allowed))
    if missing or unexpected:
        told = [f"it lacks {named(missing)}"] if missing else []
        told += [f"it has {named(unexpected)}, which the base lacks"] if unexpected else []
        raise ModelError(
            f"model.name: {directory}: {' and '.join(told)}; the adapter was trained on another "
            f"base than {ADAPTER_CONFIG} says"
        )
    for name, value in held.items():
        if (".lora_" in name or name not in wanted) and value.shape != allowed[name].shape:
            raise ModelError(
                f"model.name: {directory}: {name} has the shape {tuple(value.shape)}, but for "
                f"this base and {ADAPTER_CONFIG} it must have {tuple(allowed[name].shape)}; the "
                f"base or the rank (r) differs"
            )
    if config.ensure_weight_tying and _updates_a_tied_embedding(model, held):
        raise ModelError(
            f"model.name: {directory}: ensure_weight_tying updates the embedding twice in one matrix, which cannot be "
            "merged; train an adapter without it, or without the embedding"
        )
    for name in held:
        layer = name.removeprefix("base_model.model.").removesuffix(".lora_B.bias")
        if name.endswith(".lora_B.bias") and model.get_submodule(layer).bias is None:
            raise ModelError(
                f"model.name: {directory}: lora_bias gives {layer} a bias, and the base has none there, so that it "
                "cannot be merged; train an adapter without lora_bias"
            )
