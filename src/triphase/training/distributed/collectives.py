"""Collectives of single tensors under the names that the installed torch has for them: 2.13 renamed both."""

from typing import Any

import torch.distributed as dist
from torch import Tensor

_GATHER = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_SCATTER_SUM = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def gather(whole: Tensor, part: Tensor, group: Any) -> None:
    """Write the (n,) parts of all ranks into the (world · n,) ``whole``, in their order."""
    _GATHER(whole, part, group=group)


def scatter_sum(part: Tensor, whole: Tensor, group: Any) -> None:
    """Write this rank's (n,) part of the sum over ranks of their (world · n,) ``whole`` into ``part``."""
    _SCATTER_SUM(part, whole, group=group)
