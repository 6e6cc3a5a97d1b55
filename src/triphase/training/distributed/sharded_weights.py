"""Trained weights of which each rank has some rows, as FSDP2 divides them: gradients, and whole tensors for files.

The gradient of a whole weight stays on a rank until the step, where it is summed and divided among the ranks. So ranks
need not run the same passes, and a rank stores the weight's rows, the rows of the optimizer's moments, and, during a
step, one whole gradient.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from triphase.training.distributed.collectives import gather, scatter_sum

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


class ShardedWeights:
    """The sharded weights that an optimizer trains, by their names there."""

    def __init__(self, rank: int, world: int, group: Any) -> None:
        """``group`` is that of the ranks."""
        self._rank, self._world, self._group = rank, world, group
        self._weights: dict[str, tuple[DTensor, nn.Parameter]] = {}

    def __bool__(self) -> bool:
        return bool(self._weights)

    def __contains__(self, name: str) -> bool:
        return name in self._weights

    def own(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        """This rank's rows of each sharded weight, in the same memory; others unchanged."""
        from torch.distributed.tensor import DTensor

        found = {}
        for name, weight in parameters.items():
            found[name] = weight
            if isinstance(weight, DTensor):
                found[name] = nn.Parameter(weight.to_local().detach())
                self._weights[name] = weight, found[name]
        return found

    def sum_gradients(self, blocks: Sequence[nn.Module], total: Callable[[Tensor], None]) -> None:
        """Give each rank the rows of the gradients, summed over ranks; a gradient that no rank has stays absent.

        ``total`` sums a tensor over ranks, in place.
        """
        if not self._weights:
            return
        wholes = {id(each.sharded_param): each._unsharded_param for each in _fsdp_parameters(blocks)}
        names = list(self._weights)
        has = torch.tensor([float(wholes[id(self._weights[name][0])].grad is not None) for name in names])
        total(has)
        for name, count in zip(names, has.tolist(), strict=True):
            weight, own = self._weights[name]
            whole, own.grad = wholes[id(weight)], None
            if count:
                own.grad = self._scattered(whole.grad, weight).view_as(own)
            whole.grad = None

    def discard_gradients(self, blocks: Sequence[nn.Module]) -> None:
        """Forget the gradients of whole weights."""
        if self._weights:
            for each in _fsdp_parameters(blocks):
                if hasattr(each, "_unsharded_param"):
                    each._unsharded_param.grad = None

    def whole(self, name: str, own: Tensor) -> Tensor:
        """A tensor of the shape of a sharded weight, of which every rank gives its rows."""
        weight, _ = self._weights[name]
        rows, width = -(-len(weight) // self._world), weight.numel() // max(1, len(weight))
        part = nn.functional.pad(own.detach().reshape(-1), (0, rows * width - own.numel()))
        found = part.new_empty(self._world * part.numel())
        gather(found, part, self._group)
        return found[: weight.numel()].view(weight.shape)

    def rows(self, name: str, whole: Tensor) -> Tensor:
        """This rank's rows of such a tensor."""
        rows = -(-len(whole) // self._world)
        return whole[min(self._rank * rows, len(whole)) : min((self._rank + 1) * rows, len(whole))]

    def _scattered(self, gradient: Tensor | None, weight: "DTensor") -> Tensor:
        local, rows = weight.to_local(), -(-len(weight) // self._world)
        width = weight.numel() // max(1, len(weight))
        size = self._world * rows * width
        flat = torch.zeros(size, dtype=local.dtype, device=local.device)
        if gradient is not None:
            flat[: gradient.numel()] = gradient.reshape(-1)
        found = flat.new_empty(rows * width)
        scatter_sum(found, flat, self._group)
        return found[: local.numel()]


def _fsdp_parameters(blocks: Sequence[nn.Module]) -> Iterator[Any]:
    for block in blocks:
        for group in block._get_fsdp_state()._fsdp_param_groups:  # type: ignore[operator]
            yield from group.fsdp_params
