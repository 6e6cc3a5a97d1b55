"""Opening pretrained models: a local directory or a hub id becomes a frozen base and its tokenizer."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from triphase.errors import ModelError
from triphase.models.backbone import layers_of
from triphase.models.chain import Chain, PlaceOf, as_named, chain_of, errors_under
from triphase.models.files import named
from triphase.models.merging import merged
from triphase.models.pretrained import open_config, open_tokenizer, open_weights
from triphase.models.products import prefers_bfloat16
from triphase.models.quantization import quantize, require_library
from triphase.models.sharded_loading import Shard, local_part, move_undivided, open_parts
from triphase.settings.schema import ModelSettings


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A causal language model with frozen weights, in evaluation mode, its tokenizer, and options of its use.

    Attributes:
        sharded: whether its layers are divided among the processes of a run.
        capture_decoding: whether sampling captures its step as a CUDA graph (`model.capture_decoding`).
        packed_decoding: whether sampling on a CPU makes packed copies of weights (`model.packed_decoding`).
        offload: whether what no pass of a stage reads is offloaded to the host's memory (`model.offload`).
        compile_layers: whether adapted layers are compiled (`model.compile_layers`).
    """

    model: Any
    tokenizer: Any
    name: str
    system_prompt: str | None = None
    recompute_activations: bool = False
    texts_write_control_tokens: bool = False
    template_date: str | None = None
    sharded: bool = False
    capture_decoding: Literal["auto", "on", "off"] = "auto"
    offload: bool = False
    compile_layers: bool = False
    packed_decoding: bool = False


def choose_device(setting: str) -> torch.device:
    """The device a setting names.

    Raises:
        ModelError: CUDA is requested and not available.
    """
    if setting == "cuda" and not torch.cuda.is_available():
        raise ModelError("model.device is cuda, but torch sees no CUDA device; set it to cpu or auto")
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(setting)


def require_card(settings: ModelSettings) -> None:
    """Refuse settings that need a CUDA device if the model is on another one.

    Raises:
        ModelError: it is.
    """
    device = choose_device(settings.device)
    if settings.capture_decoding == "on" and device.type != "cuda":
        raise ModelError(
            f"model.capture_decoding is on, but the model is on {device.type}, and only CUDA "
            f"devices support it; set it to auto"
        )
    if settings.offload and device.type != "cuda":
        raise ModelError(
            f"model.offload is true, but the model is on {device.type}, in whose memory everything is already; "
            f"set it to false"
        )


def choose_dtype(setting: str, device: torch.device) -> torch.dtype:
    """The dtype of the base; ``auto`` is bfloat16 where its products are faster."""
    if setting == "auto":
        return torch.bfloat16 if prefers_bfloat16(device.type) else torch.float32
    return torch.bfloat16 if setting == "bfloat16" else torch.float32


def load_model(settings: ModelSettings, place_of: PlaceOf = as_named, shard: Shard | None = None) -> LoadedModel:
    """Open the model in the settings: a whole one, or a base with the adapters that were trained on it.

    ``place_of`` maps the name of a model, or of the base that an adapter's directory names, to its location; ``shard``
    keeps a part of the layers on this rank.

    Raises:
        ModelError: it cannot be found or opened, is not a decoder, or a weight is missing, unexpected or not finite.
    """
    require_card(settings)
    device = choose_device(settings.device)
    require_library(settings.quantization)
    chain = chain_of(settings, place_of)
    open_config(chain.base, chain.settings)
    dtype = choose_dtype(settings.dtype, device)
    model = None if shard is None else open_parts(chain, dtype, device, shard)
    if model is None:
        model = _whole(chain, dtype)
        require_finite(model, settings.name)
        if shard is not None:
            shard(layers_of(model), device)
    else:
        require_finite(model, settings.name)
    tokenizer = open_tokenizer(chain.tokenizer, settings)
    if settings.quantization is not None:
        quantize(model, settings.quantization, device)
    if shard is None:
        model.to(device)
    else:
        move_undivided(model, device)
    _switch_dropout_off(model)
    return LoadedModel(
        model,
        tokenizer,
        chain.name,
        settings.system_prompt,
        settings.recompute_activations,
        settings.texts_write_control_tokens,
        settings.template_date,
        shard is not None,
        settings.capture_decoding,
        settings.offload,
        settings.compile_layers,
        settings.packed_decoding,
    )


def _whole(chain: Chain, dtype: torch.dtype) -> Any:
    model = open_weights(chain.base, chain.settings, dtype=dtype)
    for adapter in chain.adapters:
        with errors_under(chain.setting_of(adapter)):
            model = merged(model, adapter)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def require_finite(model: torch.nn.Module, name: str) -> None:
    """Refuse weights that contain NaN or infinity.

    Raises:
        ModelError: names the first of them.
    """
    broken = [key for key, value in model.state_dict().items() if not _is_finite(local_part(value))]
    if broken:
        raise ModelError(
            f"model.name: {name!r}: {named(broken)}: not finite (NaN or infinity); use an earlier checkpoint of the "
            "model, or download it again"
        )


def _is_finite(value: torch.Tensor) -> bool:
    if not value.is_floating_point() or not value.numel():
        return True
    low, high = value.aminmax()  # NaN if the tensor contains one, and no copy
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _switch_dropout_off(model: torch.nn.Module) -> None:
    # Dropout would make the first ratio differ from 1 (Huang et al. 2024, detail 7).
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
