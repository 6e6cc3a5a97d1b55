"""Opens a model of which each process keeps a part of every layer: each reads its own rows, none the whole.

The model is created without weights, its layers are divided, and then each process reads its part from the safetensors
files: rows of the weights of layers, and all weights outside of them.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from triphase.errors import ModelError
from triphase.models.backbone import layers_of
from triphase.models.chain import Chain
from triphase.models.files import weight_files
from triphase.models.pretrained import open_config, open_weights, opening

Rows = Callable[[int, str, int, int], Tensor]
"""Rows of a weight: the layer's number, the weight's name in it, the first row, and the row after the last."""


class Shard(Protocol):
    """What divides layers among processes."""

    def __call__(self, blocks: Sequence[nn.Module], device: torch.device, rows: Rows | None = None) -> None:
        """Keep a part of each weight on ``device``, from the existing data or from what ``rows`` reads."""
        ...


def local_part(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that may be divided among several."""
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local


def move_undivided(model: nn.Module, device: torch.device) -> None:
    """Move everything but the parts of divided weights, which stay where they were put: on the device, or in the
    machine's memory."""
    for tensor in (*model.parameters(), *model.buffers()):
        if not hasattr(tensor, "to_local"):
            tensor.data = tensor.data.to(device)


class WeightFiles:
    """The tensors of a model's safetensors files, read by rows.

    Attributes:
        read: number of bytes read so far.
    """

    def __init__(self, directory: Path) -> None:
        self._files: dict[str, Any] = {}
        for path in weight_files(directory):
            file = safe_open(path, framework="pt")
            self._files |= dict.fromkeys(file.keys(), file)  # type: ignore[no-untyped-call]
        self.read = 0

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def rows(self, name: str, first: int = 0, last: int | None = None) -> Tensor:
        """Rows of one tensor; all of them by default."""
        found = self._files[name].get_slice(name)
        if first == last:
            return torch.empty(0, *found.get_shape()[1:])
        part: Tensor = found[first:last]
        self.read += part.nbytes
        return part


def open_parts(chain: Chain, dtype: torch.dtype, device: torch.device, shard: Shard) -> Any | None:
    """The model with its layers divided by ``shard``; None if it can only be opened whole.

    That is so if adapters are merged into it, or if its files name weights differently than its modules do.

    Raises:
        ModelError: the files do not fit the model.
    """
    if chain.adapters:
        return None
    model = open_weights(chain.base, chain.settings, device_map="meta", dtype=dtype)
    files = WeightFiles(_directory(chain))
    if any(name not in files for name, _ in model.named_parameters()):
        return None
    _give_buffers(model, chain, files)
    layers = layers_of(model)
    names = {module: name for name, module in model.named_modules()}

    def rows(number: int, name: str, first: int, last: int) -> Tensor:
        return files.rows(f"{names[layers[number]]}.{name}", first, last).to(dtype)

    model.eval().requires_grad_(False)
    shard(layers, device, rows)
    for name, weight in list(model.named_parameters()):
        if weight.is_meta:
            _set(model, name, nn.Parameter(files.rows(name).to(device, dtype), requires_grad=False))
    model.tie_weights()
    return model


@torch.no_grad()
def copy_of_parts(model: Any, device: torch.device, shard: Shard) -> Any:
    """A copy of a model with divided layers, divided by ``shard`` in the same way: each process copies its own parts.

    Raises:
        ModelError: the model's configuration describes another model, so that it cannot be created again.
    """
    with _weights_without_data():
        made: Any = type(model)(copy.deepcopy(model.config))
    weights = dict(model.named_parameters(remove_duplicate=False))
    for name, weight in list(made.named_parameters()):
        if name not in weights or weights[name].shape != weight.shape:
            raise ModelError(
                f"{type(model).__name__} cannot be copied in parts ({name} differs from its configuration); set "
                f"ppo.method: lora, or parallel.strategy: replicated"
            )
        _set(made, name, nn.Parameter(torch.empty_like(weight, dtype=weights[name].dtype), requires_grad=False))
    for name, buffer in model.named_buffers():
        _set(made, name, buffer.clone())
    parts = [dict(layer.named_parameters()) for layer in layers_of(model)]
    made.eval()
    shard(layers_of(made), device, lambda number, name, first, last: local_part(parts[number][name]).clone())
    for name, weight in list(made.named_parameters()):
        if weight.is_meta:
            _set(made, name, nn.Parameter(weights[name].clone(), requires_grad=False))
    made.tie_weights()
    made.generation_config = copy.deepcopy(model.generation_config)
    return made


def _directory(chain: Chain) -> Path:
    if chain.directory is not None:
        return chain.directory
    with opening("the weights", chain.settings.name):
        return Path(
            snapshot_download(chain.base, revision=chain.settings.revision, allow_patterns=["*.safetensors", "*.json"])
        )


def _give_buffers(model: Any, chain: Chain, files: WeightFiles) -> None:
    """Tensors that are not weights, as the model's own classes create them (tables of positions, masks)."""
    with _weights_without_data():
        made: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            open_config(chain.base, chain.settings), trust_remote_code=bool(chain.settings.trust_remote_code)
        )
    for name, buffer in made.named_buffers():
        _set(model, name, files.rows(name) if name in files else buffer)


def _set(model: nn.Module, name: str, value: Tensor) -> None:
    owner, _, child = name.rpartition(".")
    place: Any = model.get_submodule(owner)
    (place._parameters if isinstance(value, nn.Parameter) else place._buffers)[child] = value


@contextmanager
def _weights_without_data() -> Iterator[None]:
    plain = nn.Module.register_parameter

    def register(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        plain(self, name, None if parameter is None else nn.Parameter(parameter.to("meta"), parameter.requires_grad))

    nn.Module.register_parameter = register  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = plain  # type: ignore[method-assign]
