"""Low-rank adapters: several by name on one frozen base, at most one active at a time (`models.lora` has the map).

Files are peft's: `PeftModel.from_pretrained` opens them.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from triphase.batches.order import generator
from triphase.errors import ModelError
from triphase.models.backbone import Backbone
from triphase.models.lora import LoraLinear
from triphase.models.offloading import Place
from triphase.models.quantization import QuantizedLinear

_MAMBA = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
"""Kinds whose ``out_proj`` peft does not adapt, since their fused kernels read its weight by themselves."""


class Adapters:
    """The adapters of one base: added, switched, read and written by name.

    Attributes:
        rank, alpha: see `LoraLinear`.
        targets: names of the adapted linear maps inside a layer, sorted (``q_proj`` …).
        active: the active adapter; None is the bare base.
    """

    def __init__(self, backbone: Backbone, *, rank: int, alpha: float, targets: tuple[str, ...] | str, seed: int):
        """Wrap the linear maps of the layers above the boundary.

        Raises:
            ModelError: a target is not a linear map of those layers.
        """
        self.backbone = backbone
        self.rank = rank
        self.alpha = alpha
        self._seed = seed
        self._modules: dict[str, LoraLinear] = {}
        found: set[str] = set()
        for owner, child, path in _linear_maps(backbone):
            if child == "out_proj" and backbone.model.config.model_type in _MAMBA:
                continue
            found.add(child)
            if targets == "all-linear" or child in targets:
                module = LoraLinear(getattr(owner, child), rank=rank, alpha=alpha)
                setattr(owner, child, module)
                self._modules[path] = module
        self.targets = tuple(sorted({path.rsplit(".", 1)[-1] for path in self._modules}))
        self.active: str | None = None
        backbone.recomputation.restore_hooks.append(self.as_now)
        if not found:
            raise ModelError(
                f"the layers of {type(backbone.model).__name__} have no linear layers "
                f"(torch.nn.Linear or Conv1D), which adapters need; docs/models.md lists supported families"
            )
        missing = [] if isinstance(targets, str) else sorted(set(targets) - found)
        if missing or not self._modules:
            raise ModelError(
                f"adapters.targets has {', '.join(missing) or 'nothing'}, which the model's layers do not have; "
                f"they have {', '.join(sorted(found))}"
            )

    def add(self, name: str) -> None:
        """Add a fresh adapter without effect. Its random start depends on the run's seed alone."""
        random = generator(self._seed, "adapter")
        for module in self._modules.values():
            module.add(name, random, self.backbone.device)

    @torch.no_grad()
    def redraw(self, name: str, *purpose: str | int) -> None:
        """Redraw the random half of an adapter without effect; an adapter with an effect is left alone."""
        if any(bool(module.lora_b[name].any()) for module in self._modules.values()):
            return
        random = generator(self._seed, "adapter", *purpose)
        for module in self._modules.values():
            module.add(name, random, self.backbone.device)

    def activate(self, name: str | None) -> None:
        """Activate one adapter; None leaves the bare base."""
        self.active = name
        for module in self._modules.values():
            module.active = name

    def as_now(self) -> AbstractContextManager[None]:
        """A context in which the currently active adapter is active."""
        return self.at_work(self.active)

    @contextmanager
    def at_work(self, name: str | None) -> Iterator[None]:
        """Activate one adapter temporarily; afterwards the previous one is restored."""
        before = self.active
        self.activate(name)
        try:
            yield
        finally:
            self.activate(before)

    def parameters(self, name: str) -> dict[str, nn.Parameter]:
        """Parameters of an adapter under the names of peft's files, in a fixed order."""
        named: dict[str, nn.Parameter] = {}
        for path, module in self._modules.items():
            named[f"base_model.model.{path}.lora_A.weight"] = module.lora_a[name]
            named[f"base_model.model.{path}.lora_B.weight"] = module.lora_b[name]
        return named

    def state(self, name: str) -> dict[str, Tensor]:
        """A copy of an adapter's tensors, on the CPU."""
        return {key: value.detach().cpu().clone() for key, value in self.parameters(name).items()}

    @torch.no_grad()
    def load(self, name: str, state: dict[str, Tensor]) -> None:
        """Load these tensors into an adapter, which is added if it does not exist.

        Raises:
            ModelError: the tensors belong to other layers, targets or another rank.
        """
        if not self.has(name):
            self.add(name)
        parameters = self.parameters(name)
        if set(parameters) != set(state) or any(parameters[key].shape != state[key].shape for key in parameters):
            raise ModelError(
                f"the adapter to be loaded as {name!r} was trained with other values of "
                f"adapters.layers, adapters.targets or adapters.rank; use the settings it was trained with"
            )
        for key, parameter in parameters.items():
            parameter.copy_(state[key])

    def has(self, name: str) -> bool:
        """Whether there is an adapter of that name."""
        return name in next(iter(self._modules.values())).lora_a

    @property
    def names(self) -> list[str]:
        """The adapters that there are."""
        return list(next(iter(self._modules.values())).lora_a)

    def places(self, name: str) -> list[Place]:
        """Where the tensors of an adapter are kept."""
        modules = self._modules.values()
        return [(part._parameters, name) for module in modules for part in (module.lora_a, module.lora_b)]

    def remove(self, name: str) -> None:
        """Remove an adapter, if there is one of that name."""
        for module in self._modules.values():
            for part in (module.lora_a, module.lora_b):
                if name in part:
                    del part[name]

    def train_only(self, *names: str | None) -> None:
        """Enable gradients for these adapters only; with None, for no adapter."""
        for module in self._modules.values():
            for adapter in module.lora_a:
                module.lora_a[adapter].requires_grad_(adapter in names)
                module.lora_b[adapter].requires_grad_(adapter in names)

    @torch.no_grad()
    def merge(self, name: str, weights: Mapping[str, Tensor] | None = None) -> None:
        """Merge an adapter's update into the base, in float32, rounded once; afterwards the adapter must not be active.

        W ← W + (alpha / rank)·B·A

        Into ``weights`` instead, if given: copies of the base's, by the names that they have in its files.

        Raises:
            ModelError: the base is quantized, and its codes cannot hold the update.
        """
        if any(isinstance(module.base, QuantizedLinear) for module in self._modules.values()):
            raise ModelError(
                "an adapter cannot be merged into a quantized base; load the model without model.quantization"
            )
        for path, module in self._modules.items():
            weight = module.base.weight if weights is None else weights[f"{path}.weight"]
            weight.copy_(weight.float() + module.update(name).to(weight.device))

    @contextmanager
    def removed(self) -> Iterator[None]:
        """The model as it was before it was wrapped, temporarily, for libraries that do not know our modules."""
        owners = {path: _owner(self.backbone.model, path) for path in self._modules}
        for path, module in self._modules.items():
            setattr(*owners[path], module.base)
        try:
            yield
        finally:
            for path, module in self._modules.items():
                setattr(*owners[path], module)

    def peft_config(self, *, task: str, base_model: str, extra_modules: list[str] | None = None) -> dict[str, Any]:
        """The ``adapter_config.json`` that peft reads."""
        layers = list(range(self.backbone.trunk_layers, self.backbone.layer_count))
        return {
            "peft_type": "LORA",
            "task_type": task,
            "base_model_name_or_path": base_model,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": all(module.transposed for module in self._modules.values()),
            "inference_mode": True,
            "init_lora_weights": True,
            "target_modules": list(self.targets),
            "layers_to_transform": layers,
            "layers_pattern": self.backbone.layers_name,
            "modules_to_save": extra_modules,
        }


def _owner(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    parent, _, child = path.rpartition(".")
    return model.get_submodule(parent), child


def _linear_maps(backbone: Backbone) -> Iterator[tuple[nn.Module, str, str]]:
    """(owner, attribute, path from the language model) of each linear map above the boundary."""
    layers = getattr(backbone.model.get_decoder(), backbone.layers_name)
    paths = {module: path for path, module in backbone.model.named_modules()}
    for layer in list(layers)[backbone.trunk_layers :]:
        for owner in list(layer.modules()):
            for child, module in list(owner.named_children()):
                if isinstance(module, nn.Linear | Conv1D | QuantizedLinear):
                    yield owner, child, paths[module]
