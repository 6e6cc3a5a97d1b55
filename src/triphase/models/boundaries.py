"""Hidden states at the boundary, kept for samples that are visited more than once.

They are computed in an order of their own, fixed by the samples alone, so a run that is resumed computes the same
bits: the rounding of a matrix product can depend on what else is in the batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from triphase.batches.order import microbatches
from triphase.batches.padding import TokenBatch, pad_batch
from triphase.models.roles import SharedModel
from triphase.tokens.encoding import Encoded

# Above this, the trunk is computed anew for each visit: memory is the scarcer of the two.
BUDGET_BYTES = 2_000_000_000


class Boundaries:
    """The boundary of each sample, from memory where it fits and where it pays, else computed at each visit."""

    def __init__(
        self,
        shared: SharedModel,
        samples: Sequence[Encoded],
        *,
        visits: float,
        max_tokens: int,
        budget_bytes: int = BUDGET_BYTES,
    ) -> None:
        self._shared = shared
        self._kept: list[Tensor] | None = None
        tokens = sum(sample.length for sample in samples)
        size = tokens * shared.backbone.hidden_size * shared.backbone.dtype.itemsize
        if visits > 1 and shared.backbone.trunk_layers and size <= budget_bytes:
            self._kept = self._compute(samples, max_tokens)

    def of(self, indices: Sequence[int], batch: TokenBatch) -> Tensor:
        """(B, L, d) boundary of the samples ``indices``, of which ``batch`` is the padded batch."""
        if self._kept is None:
            return self._shared.trunk(batch)
        length = batch.input_ids.shape[1]
        rows = [torch.nn.functional.pad(self._kept[index], (0, 0, 0, length)) for index in indices]
        return torch.stack([row[:length] for row in rows])

    def _compute(self, samples: Sequence[Encoded], max_tokens: int) -> list[Tensor]:
        kept: list[Tensor] = [torch.empty(0)] * len(samples)
        for indices in microbatches([sample.length for sample in samples], max_tokens=max_tokens):
            batch = pad_batch(
                [samples[index] for index in indices], pad_id=self._shared.template.pad_id, device=self._shared.device
            )
            states = self._shared.trunk(batch)
            for row, index in enumerate(indices):
                kept[index] = states[row, : samples[index].length].clone()
        return kept
