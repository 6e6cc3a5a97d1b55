"""What each rank has computed of its own samples, put together on all of them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from triphase.training.distributed.types import Strategy


def gathered(strategy: Strategy, found: Mapping[int, Tensor], sizes: Sequence[int], *, width: int = 1) -> list[Tensor]:
    """The rows of every sample, in order, from those that this rank has found.

    Args:
        found: place → (rows, width), or (rows,) where ``width`` is 1; each place is some rank's.
        sizes: the rows of each place.
    """
    if strategy.world == 1:
        return [found[place] for place in range(len(sizes))]
    rows = torch.zeros(sum(sizes), width)
    for place, part in enumerate(torch.split(rows, list(sizes))):
        if place in found:
            part.copy_(found[place].reshape(len(part), width))
    strategy.sum_tensors([rows])
    return list(torch.split(rows if width > 1 else rows[:, 0], list(sizes)))
