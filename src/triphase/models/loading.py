"""Opening pretrained models: a local directory or a hub id becomes a frozen base and its tokenizer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from triphase.errors import ModelError
from triphase.models.products import prefers_bfloat16
from triphase.settings.schema import ModelSettings


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A causal language model with frozen weights, in evaluation mode, its tokenizer, and how it is to be used."""

    model: Any
    tokenizer: Any
    name: str
    system_prompt: str | None = None
    recompute_activations: bool = False


def choose_device(setting: str) -> torch.device:
    """The device a setting names.

    Raises:
        ModelError: CUDA is asked for and is not there.
    """
    if setting == "cuda" and not torch.cuda.is_available():
        raise ModelError("model.device is cuda, but torch sees no CUDA device; set it to cpu or auto")
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(setting)


def choose_dtype(setting: str, device: torch.device) -> torch.dtype:
    """The number type of the base; ``auto`` is bfloat16 where its products are faster."""
    if setting == "auto":
        return torch.bfloat16 if prefers_bfloat16(device.type) else torch.float32
    return torch.bfloat16 if setting == "bfloat16" else torch.float32


def load_model(settings: ModelSettings) -> LoadedModel:
    """Open the model that the settings name.

    Raises:
        ModelError: it cannot be found or opened, or it is no decoder.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    device = choose_device(settings.device)
    options: dict[str, Any] = {"trust_remote_code": bool(settings.trust_remote_code)}
    if settings.revision is not None:
        options["revision"] = settings.revision
    looks_local = settings.name.startswith((".", "/", "~"))
    name = str(Path(settings.name).expanduser()) if looks_local else settings.name
    if looks_local and not Path(name).is_dir():
        raise ModelError(f"model.name: there is no directory {name}; write a directory or a hub id")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        model: Any = AutoModelForCausalLM.from_pretrained(
            name, dtype=choose_dtype(settings.dtype, device), use_safetensors=True, **options
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model.name: cannot open {name!r}: {first_line} — check the name, the network, and that the model is a "
            "decoder with safetensors weights"
        ) from error
    model.to(device).eval().requires_grad_(False)
    _switch_dropout_off(model)
    return LoadedModel(model, tokenizer, name, settings.system_prompt, settings.recompute_activations)


def _switch_dropout_off(model: torch.nn.Module) -> None:
    # Dropout would make the first ratio differ from 1 (Huang et al. 2024, detail 7).
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
