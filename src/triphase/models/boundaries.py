"""Hidden states at the boundary, kept for samples that are visited more than once.

They are computed in an order of their own, fixed by the samples alone, so a run that is resumed computes the same
bits: the rounding of a matrix product can depend on what else is in the batch.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from triphase.batches.order import microbatches
from triphase.batches.padding import TokenBatch
from triphase.batches.sharing import GroupBatch
from triphase.models.roles import SharedModel

Batch = TokenBatch | GroupBatch
# Above this, the trunk is computed anew for each visit: memory is the scarcer of the two.
BUDGET_BYTES = 2_000_000_000


class Boundaries:
    """The boundary of each sample, from memory where it fits and where it pays, else computed at each visit."""

    def __init__(
        self,
        shared: SharedModel,
        lengths: Sequence[int],
        make_batch: Callable[[Sequence[int]], Batch],
        *,
        visits: float,
        max_tokens: int,
        budget_bytes: int = BUDGET_BYTES,
    ) -> None:
        """``lengths`` are the tokens of each sample; ``make_batch`` pads the samples with these numbers."""
        self._shared = shared
        self._kept: list[Tensor] | None = None
        size = sum(lengths) * shared.backbone.hidden_size * shared.backbone.dtype.itemsize
        if visits > 1 and shared.backbone.trunk_layers and size <= budget_bytes:
            self._kept = [torch.empty(0)] * len(lengths)
            for indices in microbatches(lengths, max_tokens=max_tokens):
                states = shared.trunk(make_batch(indices))
                for row, index in enumerate(indices):
                    self._kept[index] = states[row, : lengths[index]].clone()

    def of(self, indices: Sequence[int], batch: Batch) -> Tensor:
        """(B, L, d) boundary of the samples ``indices``, of which ``batch`` is the padded batch."""
        if self._kept is None:
            return self._shared.trunk(batch)
        states = [self._kept[index] for index in indices]
        length = batch.input_ids.shape[1]
        return torch.stack([torch.nn.functional.pad(state, (0, 0, 0, length - len(state))) for state in states])
