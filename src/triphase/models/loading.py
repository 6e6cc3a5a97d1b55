"""Opening pretrained models: a local directory or a hub id becomes a frozen base and its tokenizer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from triphase.errors import ModelError
from triphase.models.files import ADAPTER_CONFIG, check_files, named
from triphase.models.merging import base_of, has_tokenizer, is_adapter, merged
from triphase.models.opening import open_config, open_tokenizer, open_weights
from triphase.models.places import directory_of
from triphase.models.products import prefers_bfloat16
from triphase.settings.schema import ModelSettings

_LONGEST_CHAIN = 8
PlaceOf = Callable[[str, Path | None], str]


def _as_named(name: str, adapter: Path | None) -> str:
    return name


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A causal language model with frozen weights, in evaluation mode, its tokenizer, and how it is to be used."""

    model: Any
    tokenizer: Any
    name: str
    system_prompt: str | None = None
    recompute_activations: bool = False
    texts_write_control_tokens: bool = False
    template_date: str | None = None


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


def load_model(settings: ModelSettings, place_of: PlaceOf = _as_named) -> LoadedModel:
    """Open the model that the settings name: a whole one, or a base with the adapters that were trained on it.

    ``place_of`` says where a name stands, of a model, or of the base that an adapter's directory names.

    Raises:
        ModelError: it cannot be found or opened, is no decoder, or a weight is missing, unexpected or not finite.
    """
    device = choose_device(settings.device)
    chain = chain_of(settings, place_of)
    open_config(chain.base, chain.settings)
    model = open_weights(chain.base, chain.settings, dtype=choose_dtype(settings.dtype, device))
    for adapter in chain.adapters:
        model = merged(model, adapter)
    tokenizer = open_tokenizer(chain.tokenizer, settings)
    model.to(device).eval().requires_grad_(False)
    require_finite(model, settings.name)
    _switch_dropout_off(model)
    return LoadedModel(
        model,
        tokenizer,
        chain.name,
        settings.system_prompt,
        settings.recompute_activations,
        settings.texts_write_control_tokens,
        settings.template_date,
    )


@dataclass(frozen=True, slots=True)
class Chain:
    """Where the parts of a model stand.

    Attributes:
        name: of the whole, as exported adapters are to name it.
        base: the directory or hub id of the base; ``settings`` are those that it is opened with.
        adapters: directories of adapters, in the order in which they are merged.
        tokenizer: where the tokenizer is.
    """

    name: str
    base: str
    settings: ModelSettings
    adapters: tuple[Path, ...]
    tokenizer: str

    @property
    def directory(self) -> Path | None:
        """The base's directory; None is a hub id."""
        path = Path(self.base)
        return path if path.is_dir() else None


def chain_of(settings: ModelSettings, place_of: PlaceOf = _as_named, *, weights: bool = True) -> Chain:
    """Follow adapters to their base, and look at every file on the way, without reading a weight.

    Without ``weights`` the base need not have any.

    Raises:
        ModelError: something is missing, damaged, or no decoder.
    """
    name = place_of(settings.name, None)
    adapters: list[Path] = []
    directory = directory_of(name)
    while directory is not None and is_adapter(directory):
        if directory in adapters or len(adapters) == _LONGEST_CHAIN:
            raise ModelError(f"model.name: {directory}: its adapters name one another as base, and no model")
        adapters.insert(0, directory)
        adapter, base = directory, place_of(base_of(directory), directory)
        try:
            directory = directory_of(base)
        except ModelError as error:
            raise ModelError(
                f"{error}; {adapter / ADAPTER_CONFIG} names it as base_model_name_or_path: correct it there"
            ) from error
    place = str(directory) if directory is not None else base if adapters else name
    if directory is not None:
        check_files(directory, weights=weights)
    if adapters:  # revision and trust are those of the model that was named
        settings = settings.model_copy(update={"revision": None, "trust_remote_code": False})
    with_tokenizer = [str(adapter) for adapter in reversed(adapters) if has_tokenizer(adapter)]
    opened = str(Path(name).expanduser()) if adapters or directory is not None else name
    return Chain(opened, place, settings, tuple(adapters), (with_tokenizer or [place])[0])


@torch.no_grad()
def require_finite(model: torch.nn.Module, name: str) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        ModelError: names the first of them.
    """
    broken = [key for key, value in model.state_dict().items() if not _is_finite(value)]
    if broken:
        raise ModelError(
            f"model.name: {name!r}: {named(broken)}: not finite (NaN or infinity); use an earlier checkpoint of the "
            "model, or download it again"
        )


def _is_finite(value: torch.Tensor) -> bool:
    if not value.is_floating_point() or not value.numel():
        return True
    low, high = value.aminmax()  # NaN where one is in it, and no copy
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _switch_dropout_off(model: torch.nn.Module) -> None:
    # Dropout would make the first ratio differ from 1 (Huang et al. 2024, detail 7).
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
