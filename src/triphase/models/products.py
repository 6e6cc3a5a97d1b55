"""Products of frozen weights with few rows, as in generation, in the orientation that is fast.

    y = W·xᵀ        W (N, K) as stored, x (M, K) with few rows, y (N, M)

With few rows a product is bound by reading W. Matrix libraries read it faster as the left factor than as the transposed
right one, and nothing has to be packed or stored twice (docs/performance.md has the difference). In bfloat16 on a CPU a
packed copy is faster still: `FusedLinear` makes one if asked to.
"""

import math
import os
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from triphase.models.lora import LoraLinear
from triphase.models.packing import can_pack, multiply_packed, pack
from triphase.models.quantization import QuantizedLinear
from triphase.models.simulated_card import is_simulated

# oneDNN caches the code that it generates for each shape of a product in bfloat16, 0.7 MB each, up to 1024 of them, in
# two caches. Lengths differ from batch to batch, so a run came to twice its planned memory. A step uses fewer than
# these. Read at the first product; 0 would end the process.
for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, "64")
# Rows of W that are converted together where bfloat16 is slow: they stay in the processor's cache.
_WIDENED_ROWS = 2048
_TIMED = (128, 576, 1536)  # rows, inputs and outputs of the products that are timed
_TIMES = 12
_CLEARLY_FASTER = 1.25


@cache
def has_bfloat16(device_type: str) -> bool:
    """Whether the hardware has instructions for products in bfloat16. They may still be slow: `prefers_bfloat16`."""
    if device_type != "cpu":
        return bool(torch.cuda.is_bf16_supported())
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


@cache
def prefers_bfloat16(device_type: str) -> bool:
    """Whether products are clearly faster in bfloat16 than in float32.

    A processor may have the instructions and run them at a fraction of its float32 rate (0.6 of it was measured, and
    2.3 on another), so the two are timed against each other, for a few hundredths of a second.
    """
    if not has_bfloat16(device_type):
        return False
    return device_type != "cpu" or _bfloat16_rate() >= _CLEARLY_FASTER


def _bfloat16_rate() -> float:
    """Rate of products in bfloat16 divided by that in float32, on one thread.

    Processor time, and the best of several alternating runs, so that other load on the machine does not decide.
    """
    x, weight = torch.ones(_TIMED[0], _TIMED[1]), torch.ones(_TIMED[2], _TIMED[1])
    sides = {dtype: (x.to(dtype), weight.to(dtype)) for dtype in (torch.float32, torch.bfloat16)}
    best = dict.fromkeys(sides, math.inf)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(_TIMES):
            for dtype, (left, right) in sides.items():
                start = time.thread_time()
                torch.nn.functional.linear(left, right)
                best[dtype] = min(best[dtype], time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    return best[torch.float32] / best[torch.bfloat16]


def product_dtype(weight: Tensor) -> torch.dtype:
    """The dtype in which products with ``weight`` are fast: its own, or float32 where bfloat16 is slower."""
    if weight.dtype == torch.bfloat16 and not (is_simulated() or prefers_bfloat16(weight.device.type)):
        return torch.float32
    return weight.dtype


def packs(dtype: torch.dtype, device_type: str) -> bool:
    """Whether products of few rows with a weight of this dtype are faster with a packed copy of it: in bfloat16, on a
    CPU that is fast in it. (In float32 a packed copy is no faster than `multiply`.)"""
    return dtype == torch.bfloat16 and can_pack(device_type) and prefers_bfloat16(device_type)


def multiply(weight: Tensor, columns: Tensor, out: Tensor | None = None) -> Tensor:
    """(N, K) weight, (K, M) columns in `product_dtype` → (N, M)."""
    if out is None:
        out = columns.new_empty((weight.shape[0], columns.shape[1]))
    if weight.dtype == columns.dtype:
        return torch.mm(weight, columns, out=out)
    for rows, part in zip(torch.split(weight, _WIDENED_ROWS), torch.split(out, _WIDENED_ROWS), strict=True):
        torch.mm(rows.to(columns.dtype), columns, out=part)
    return out


class FusedLinear:
    """Linear maps that read the same input, with the adapter that is active on construction.

    The low-rank updates share one product of their A matrices; they are added, not merged into a copy of W: that costs
    two small products, needs no memory, and in bfloat16 loses no bit of the update.

    Attributes:
        sizes: outputs of each map.
    """

    def __init__(self, modules: Sequence[nn.Module], *, packed: bool = False) -> None:
        """``packed``: multiply with a packed copy of the weights where `packs` allows it."""
        bases: list[Any] = [module.base if isinstance(module, LoraLinear) else module for module in modules]
        # Of a quantized map only the codes are stored: it is dequantized for each product.
        self._weights: list[Any] = [base if isinstance(base, QuantizedLinear) else base.weight for base in bases]
        self.sizes = [base.out_features for base in bases]
        self._dtype = product_dtype(bases[0].weight)
        self._bases = bases
        self._bias = self._read_bias()
        self._adapted = [
            (place, module)
            for place, module in enumerate(modules)
            if isinstance(module, LoraLinear) and module.active is not None
        ]
        self._down, self._ups = self._read_adapters()
        plain = [weight for weight in self._weights if isinstance(weight, Tensor)]
        fits = packed and len(plain) == len(bases) and packs(plain[0].dtype, plain[0].device.type)
        self._packed = pack(plain) if fits else None
        self._up = self._joint_ups() if fits and self._ups else None

    def _read_bias(self) -> Tensor | None:
        biases = [base.bias for base in self._bases]
        like = next((bias for bias in biases if bias is not None), None)
        if like is None:
            return None
        filled = [like.new_zeros(size) if bias is None else bias for size, bias in zip(self.sizes, biases, strict=True)]
        return torch.cat(filled).to(self._dtype)[:, None]

    def _read_adapters(self) -> tuple[Tensor | None, list[tuple[int, slice, Tensor]]]:
        """The stacked A matrices, and for each adapted map its index, its rows of their product and its B."""
        ups: list[tuple[int, slice, Tensor]] = []
        downs: list[Tensor] = []
        rank = 0
        for place, module in self._adapted:
            assert module.active is not None  # noqa: S101 - chosen above
            downs.append(module.lora_a[module.active].detach().to(self._dtype))
            up = (module.lora_b[module.active].detach() * module.scale).to(self._dtype)
            ups.append((place, slice(rank, rank + module.rank), up))
            rank += module.rank
        return torch.cat(downs) if downs else None, ups

    def _joint_ups(self) -> Tensor:
        """(all ranks, all outputs) the B of every adapted map, each in its own rows and columns."""
        joint = self._ups[0][2].new_zeros((self._ups[-1][1].stop, sum(self.sizes)))
        columns = torch.split(joint, self.sizes, dim=1)
        for place, own, up in self._ups:
            columns[place][own] = up.t()
        return joint

    def refresh(self) -> None:
        """Copy the current values into the tensors in use, which a CUDA graph reads."""
        bias = self._read_bias()
        if bias is not None and self._bias is not None:
            self._bias.copy_(bias)
        down, ups = self._read_adapters()
        if down is not None and self._down is not None:
            self._down.copy_(down)
        for (_, _, mine), (_, _, now) in zip(self._ups, ups, strict=True):
            mine.copy_(now)
        if self._up is not None:
            self._up.copy_(self._joint_ups())

    def __call__(self, columns: Tensor) -> Tensor:
        """(K, M) → (sum of N, M), the maps' outputs concatenated."""
        if self._packed is not None:
            return self._multiply_packed(columns.t()).t()
        y = columns.new_empty((sum(self.sizes), columns.shape[1]))
        parts = torch.split(y, self.sizes)
        for weight, part in zip(self._weights, parts, strict=True):
            multiply(weight if isinstance(weight, Tensor) else weight.weight, columns, out=part)
        if self._bias is not None:
            y += self._bias
        if self._down is not None:
            low = torch.mm(self._down, columns)
            for place, own, up in self._ups:
                parts[place].addmm_(up, low[own])
        return y

    def _multiply_packed(self, rows: Tensor) -> Tensor:
        """(M, K) → (M, sum of N)."""
        y = multiply_packed(rows, self._packed)
        if self._bias is not None:
            y += self._bias.t()
        if self._down is not None and self._up is not None:
            y.addmm_(torch.mm(rows, self._down.t()), self._up)
        return y
