"""Small batches for the tests of this folder."""

from collections.abc import Sequence

import torch
from torch import Tensor


def response_mask(lengths: Sequence[int], width: int | None = None) -> Tensor:
    """(B, R) True on the first tokens of each row."""
    return torch.arange(width or max(lengths))[None, :] < torch.tensor(lengths)[:, None]


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64, the same at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spoiled(x: Tensor, mask: Tensor, value: float) -> Tensor:
    """The tensor with another value wherever the mask does not count."""
    return torch.where(mask, x, value)
