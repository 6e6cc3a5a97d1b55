"""Linear maps of the frozen base in few bits: int8 by torchao, nf4 by bitsandbytes.

    int8:  w ≈ s·c       c in −127…127, one scale s for each output
    nf4:   w ≈ s·q(c)    c one of 16 quantiles of a normal distribution, one scale s for 64 weights (arXiv 2305.14314)

A map stores the codes and dequantizes them to the base's dtype for each product, and again in the backward pass: a
dequantized weight never outlives its product. Embedding, language-model head, norms and all trained tensors are not
quantized.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from triphase.errors import ModelError

_BLOCK = 64
LIBRARIES = {"int8": "torchao", "nf4": "bitsandbytes"}
"""The package for each kind; both come with the extra `quantization`."""


class Packing(Protocol):
    """A storage format of weights."""

    def packed(self, weight: Tensor) -> dict[str, Tensor]:
        """(N, K) weight → its stored tensors by name; the first are the codes."""
        ...

    def widened(self, kept: dict[str, Tensor], shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Stored tensors → (N, K) weight in ``dtype``."""
        ...


class Int8:
    """Symmetric, one scale per output: torchao's weight-only int8."""

    def __init__(self) -> None:
        from torchao import quantization

        self._library: Any = quantization

    def packed(self, weight: Tensor) -> dict[str, Tensor]:
        """See Packing. The scale is stored in the weight's dtype; codes are computed for the stored scale."""
        library, block = self._library, (1, weight.shape[1])
        wide = weight.float()
        scale, zero = library.choose_qparams_affine(
            wide, library.MappingType.SYMMETRIC, block, torch.int8, quant_min=-127, quant_max=127
        )
        scale = scale.to(weight.dtype)
        # A row of zeros has scale 0, or one that underflows its dtype.
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        codes = library.quantize_affine(wide, block, scale.float(), zero, torch.int8, quant_min=-127, quant_max=127)
        return {"codes": codes, "scales": scale.reshape(-1, 1)}

    def widened(self, kept: dict[str, Tensor], shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """See Packing."""
        scale = kept["scales"].to(dtype)
        wide: Tensor = self._library.dequantize_affine(
            kept["codes"], (1, shape[1]), scale, None, torch.int8, output_dtype=dtype
        )
        return wide


class NF4:
    """Four bits with the levels of a normal distribution: bitsandbytes."""

    def __init__(self) -> None:
        from bitsandbytes import functional

        self._library: Any = functional

    def packed(self, weight: Tensor) -> dict[str, Tensor]:
        """See Packing. Two codes share a byte."""
        codes, state = self._library.quantize_4bit(
            weight.contiguous(), blocksize=_BLOCK, compress_statistics=False, quant_type="nf4"
        )
        return {"codes": codes, "scales": state.absmax, "levels": state.code.to(weight.device)}

    def widened(self, kept: dict[str, Tensor], shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """See Packing."""
        state = self._library.QuantState(
            absmax=kept["scales"],
            shape=torch.Size(shape),
            code=kept["levels"],
            blocksize=_BLOCK,
            quant_type="nf4",
            dtype=dtype,
        )
        wide: Tensor = self._library.dequantize_4bit(kept["codes"], state)
        return wide


class QuantizedLinear(nn.Module):
    """A frozen linear map that stores codes and scales.

    Attributes:
        out_features, in_features: N and K.
        bias: (N,) unquantized, or None.
        dtype: of the dequantized weight.
    """

    bias: nn.Parameter | None
    codes: Tensor

    def __init__(self, linear: nn.Linear, packing: Packing) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self.out_features, self.in_features = weight.shape
        self.dtype = weight.dtype
        self.bias = linear.bias
        self._packing = packing
        self._names: list[str] = []
        for name, tensor in packing.packed(weight).items():
            self.register_buffer(name, tensor)
            self._names.append(name)

    @property
    def kept(self) -> dict[str, Tensor]:
        """The stored tensors of the weight, by name."""
        return {name: getattr(self, name) for name in self._names}

    @property
    def weight(self) -> Tensor:
        """(N, K), dequantized at each access; writing into it changes nothing."""
        return self._packing.widened(self.kept, (self.out_features, self.in_features), self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(…, K) → (…, N)."""
        # A view of what the function returns may be changed in place; a view created inside it may not.
        rows: Tensor = _Product.apply(x.reshape(-1, x.shape[-1]), self)  # type: ignore[no-untyped-call]
        return rows.view(*x.shape[:-1], self.out_features)


class _Product(torch.autograd.Function):
    """x·Wᵀ + b of rows x (M, K); the backward pass dequantizes W again instead of storing it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: QuantizedLinear) -> Tensor:
        ctx.linear = linear
        return nn.functional.linear(x, linear.weight, linear.bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] @ ctx.linear.weight, None


def require_library(kind: str | None) -> None:
    """Import the package for ``kind``.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    if kind is not None:
        _packing_of(kind)


@torch.no_grad()
def quantize(model: Any, kind: str, device: torch.device | str | None = None) -> None:
    """Quantize every linear map of the decoder's layers, on ``device``.

    Map by map, so that at most one unquantized weight is on the device.

    Raises:
        ModelError: the layers have no linear maps of the usual kind.
    """
    packing = _packing_of(kind)
    for owner, child, module in linear_maps(model, kind):
        setattr(owner, child, QuantizedLinear(module if device is None else module.to(device), packing))


def linear_maps(model: Any, kind: str) -> list[tuple[nn.Module, str, nn.Linear]]:
    """What `quantize` replaces: (owner, name, map) of every linear map of the decoder's layers.

    Raises:
        ModelError: the layers have no linear maps of the usual kind.
    """
    maps = [
        (owner, child, module)
        for owner in list(model.get_decoder().modules())
        for child, module in list(owner.named_children())
        if isinstance(module, nn.Linear)
    ]
    if not maps:
        raise ModelError(
            f"model.quantization: {kind} needs linear layers (torch.nn.Linear), and those of "
            f"{type(model).__name__} are not; leave it out"
        )
    return maps


def kept_codes(model: nn.Module) -> dict[str, Tensor]:
    """The stored tensors of a model's quantized maps, by name: part of its frozen weights, but not parameters."""
    return {
        f"{path}.{name}": tensor
        for path, module in model.named_modules()
        if isinstance(module, QuantizedLinear)
        for name, tensor in module.kept.items()
    }


def note_of(kind: str | None) -> str:
    """A note for users who load an adapter on the unquantized base; empty if it was not quantized."""
    if kind is None:
        return ""
    call = {
        "int8": "TorchAoConfig(Int8WeightOnlyConfig())",
        "nf4": 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")',
    }[kind]
    return (
        f"It was trained over that base quantized to {kind} ({LIBRARIES[kind]}): open the base with "
        f"quantization_config={call} for about the same numbers; over the unquantized base they "
        f"differ by that rounding error."
    )


def saved_numbers(model: nn.Module) -> int:
    """The number of weights that the codes represent."""
    quantized = (module for module in model.modules() if isinstance(module, QuantizedLinear))
    return sum(module.out_features * module.in_features for module in quantized)


def _packing_of(kind: str) -> Packing:
    return Int8() if kind == "int8" else NF4()
