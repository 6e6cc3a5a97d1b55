"""Frozen weights in the order in which a CPU's kernels for bfloat16 read them.

oneDNN computes a product in bfloat16 on blocks of the weight, into which it rearranges the weight first. With thousands
of rows this takes no time beside the product; with the few rows of a decoding step it takes up to two thirds of it. A
rearranged copy makes it unnecessary and gives the same numbers (docs/performance.md has the difference).
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

_ROWS = 32  # for which the blocks are chosen; other numbers of rows were as fast with them
PACKED_PRODUCT = "_linear_pointwise"
_OPERATIONS = ("_reorder_linear_weight", PACKED_PRODUCT)


@cache
def can_pack(device_type: str) -> bool:
    """Whether products on this kind of device read packed weights: not every processor has kernels for bfloat16."""
    if device_type != "cpu" or not all(hasattr(torch.ops.mkldnn, name) for name in _OPERATIONS):
        return False
    ones = torch.ones(2, 2, dtype=torch.bfloat16)
    try:
        return bool((multiply_packed(ones, pack([ones])) == 2.0).all())
    except RuntimeError:
        return False


def pack(weights: Sequence[Tensor]) -> Any:
    """(N₁, K), (N₂, K), … → one packed (N₁ + N₂ + …, K) for `multiply_packed`; it takes as many bytes again."""
    joint = weights[0] if len(weights) == 1 else torch.cat(list(weights))
    return torch.ops.mkldnn._reorder_linear_weight(joint.detach(), _ROWS)


def multiply_packed(rows: Tensor, packed: Any) -> Tensor:
    """(M, K) in bfloat16 and a packed (N, K) weight → x·Wᵀ (M, N)."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], "")
    return product
