"""A frozen linear map with low-rank updates.

    y = x·Wᵀ + (alpha / rank) · (x·Aᵀ)·Bᵀ        W frozen, A (r, in), B (out, r) trained; B starts at 0

Source: arXiv 2106.09685. Departure from the peft library: the update is added in the base's dtype with one
fused multiply-add, where peft casts each activation to float32 and back (docs/performance.md has the difference). The
weights themselves, their gradients and the optimizer are float32.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from triphase.models.quantization import QuantizedLinear


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

    def add(self, name: str, random: torch.Generator, device: torch.device) -> None:
        """Add an adapter without effect: A uniform as in peft (Kaiming, a = √5), B zero."""
        bound = 1 / math.sqrt(self.inputs)
        a = torch.empty(self.rank, self.inputs).uniform_(-bound, bound, generator=random)
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
        if self.active is None:
            return self._frozen(x)
        a, b = self.lora_a[self.active], self.lora_b[self.active]
        if isinstance(self.base, nn.Linear) and a.requires_grad and not self.base.weight.requires_grad:
            rows: Tensor = _Updated.apply(  # type: ignore[no-untyped-call]
                x.reshape(-1, self.inputs), self.base.weight, self.base.bias, a, b, self.scale
            )
            return rows.view(*x.shape[:-1], self.outputs)
        y = self._frozen(x)
        a, b = a.to(x.dtype), (b * self.scale).to(x.dtype)
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


class _Updated(torch.autograd.Function):
    """x·Wᵀ + bias + s·(x·Aᵀ)·Bᵀ of rows x (M, in), with the operations of `LoraLinear` in the forward pass.

        ∂x = g·W + (s·g·B)·A      ∂A = (s·g·B)ᵀ·x      ∂B = s·gᵀ·(x·Aᵀ)

    Autograd would write g·W and the update's part of ∂x, and then their sum: three passes over (M, in) instead of one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        narrow, up = a.to(x.dtype), (b * scale).to(x.dtype)
        low = nn.functional.linear(x, narrow)
        ctx.save_for_backward(x, weight, narrow, up, low)
        ctx.scale = scale
        return nn.functional.linear(x, weight, bias).addmm_(low, up.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, narrow, up, low = ctx.saved_tensors
        g = gradients[0]
        g_low, g_x = g @ up, None
        if ctx.needs_input_grad[0]:
            g_x = (g @ weight).addmm_(g_low, narrow)
        g_a, g_b = (g_low.t() @ x).float(), (g.t() @ low).float().mul_(ctx.scale)
        return g_x, None, None, g_a, g_b, None
