"""Low-rank adapters: several by name on one frozen base, at most one active at a time.

    y = x·Wᵀ + (alpha / rank) · (x·Aᵀ)·Bᵀ        W frozen, A (r, in), B (out, r) trained; B starts at 0

Source: arXiv 2106.09685. Departure from the peft library: the update is added in the base's dtype with one
fused multiply-add, where peft casts each activation to float32 and back (docs/performance.md has the difference). The
weights themselves, their gradients and the optimizer are float32. Files are peft's: `PeftModel.from_pretrained` opens
them.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from triphase.batches.order import generator
from triphase.errors import ModelError
from triphase.models.backbone import Backbone
from triphase.models.quantization import QuantizedLinear

_MAMBA = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
"""Kinds whose ``out_proj`` peft does not adapt, since their fused kernels read its weight by themselves."""


class LoraLinear(nn.Module):
    """A frozen linear map with named low-rank updates, of which ``active`` (or none) is added.

    Attributes:
        transposed: whether the base keeps its weight as (in, out): GPT-2's `Conv1D`.
    """

    def __init__(self, base: Any, *, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base
        self.transposed = not isinstance(base, nn.Linear | QuantizedLinear)
        shape = base.weight.shape[::-1] if self.transposed else (base.out_features, base.in_features)
        self.outputs, self.inputs = shape
        self.rank = rank
        self.scale = alpha / rank
        self.active: str | None = None
        self.lora_a = nn.ParameterDict()
        self.lora_b = nn.ParameterDict()

    def add(self, name: str, random: torch.Generator) -> None:
        """Add an adapter without effect: A uniform as in peft (Kaiming, a = √5), B zero."""
        bound = 1 / math.sqrt(self.inputs)
        a = torch.empty(self.rank, self.inputs).uniform_(-bound, bound, generator=random)
        device = (self.base.codes if isinstance(self.base, QuantizedLinear) else self.base.weight).device
        self.lora_a[name] = nn.Parameter(a.to(device), requires_grad=False)
        self.lora_b[name] = nn.Parameter(torch.zeros(self.outputs, self.rank, device=device), False)

    @property
    def weight(self) -> Tensor:
        """W plus the active update, in the base's layout: for layers that read weights themselves (Mamba)."""
        weight: Tensor = self.base.weight
        return weight if self.active is None else weight + self.update(self.active).to(weight.dtype)

    def update(self, name: str) -> Tensor:
        """(alpha / rank)·B·A in the layout of the base's weight."""
        update: Tensor = self.scale * (self.lora_b[name] @ self.lora_a[name])
        return update.t() if self.transposed else update

    @property
    def bias(self) -> Tensor | None:
        """(out,) the bias of the frozen map, for the same layers."""
        bias: Tensor | None = self.base.bias
        return bias

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        y = self._frozen(x)
        if self.active is None:
            return y
        a = self.lora_a[self.active].to(x.dtype)
        b = (self.lora_b[self.active] * self.scale).to(x.dtype)
        low = nn.functional.linear(x.reshape(-1, x.shape[-1]), a)
        # In place: the backward pass of a frozen linear map needs neither its output nor its input.
        y.view(-1, y.shape[-1]).addmm_(low, b.t())
        return y

    def _frozen(self, x: Tensor) -> Tensor:
        if isinstance(self.base, QuantizedLinear):
            y: Tensor = self.base(x)
            return y
        weight = self.base.weight.t() if self.transposed else self.base.weight
        return nn.functional.linear(x, weight, self.base.bias)


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
            module.add(name, random)

    @torch.no_grad()
    def redraw(self, name: str, *purpose: str | int) -> None:
        """Redraw the random half of an adapter without effect; an adapter with an effect is left alone."""
        if any(bool(module.lora_b[name].any()) for module in self._modules.values()):
            return
        random = generator(self._seed, "adapter", *purpose)
        for module in self._modules.values():
            module.add(name, random)

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
    def merge(self, name: str) -> None:
        """Merge an adapter's update into the base, in float32, rounded once; afterwards the adapter must not be active.

        W ← W + (alpha / rank)·B·A

        Raises:
            ModelError: the base is quantized, and its codes cannot hold the update.
        """
        if any(isinstance(module.base, QuantizedLinear) for module in self._modules.values()):
            raise ModelError(
                "an adapter cannot be merged into a quantized base; load the model without model.quantization"
            )
        for module in self._modules.values():
            weight = module.base.weight
            weight.copy_(weight.float() + module.update(name))

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
