"""Gathers on all ranks what each has computed for its own samples."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from triphase.training.distributed.types import Strategy


def gathered(strategy: Strategy, found: Mapping[int, Tensor], sizes: Sequence[int], *, width: int = 1) -> list[Tensor]:
    """The rows of every sample, in order, from those that this rank has computed.

    Args:
        found: index → (rows, width), or (rows,) if ``width`` is 1; each index is on exactly one rank.
        sizes: the number of rows of each index.
    """
    if strategy.world == 1:
        return [found[place] for place in range(len(sizes))]
    rows = torch.zeros(sum(sizes), width)
    for place, part in enumerate(torch.split(rows, list(sizes))):
        if place in found:
            part.copy_(found[place].reshape(len(part), width))
    strategy.sum_tensors([rows])
    return list(torch.split(rows if width > 1 else rows[:, 0], list(sizes)))
