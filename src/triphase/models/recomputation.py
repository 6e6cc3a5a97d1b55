"""Activations that are computed again in the backward pass instead of kept (gradient checkpointing, arXiv 1604.06174).

Kept is the input of each layer, (B, L, d); one layer's activations exist at a time. The layer runs twice, by the same
operations on the same numbers, so gradients are the same to the bit.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

Recall = Callable[[], AbstractContextManager[None]]
"""Called in the forward pass: gives a context in which everything is as it is then."""


class Recomputation:
    """What the layers of one model have in common when they run again.

    Attributes:
        recall: by the time of the backward pass another adapter, or none, may be at work; this brings it back.
    """

    def __init__(self) -> None:
        self.recall: Recall = nullcontext

    def wrap(self, layers: nn.ModuleList) -> nn.ModuleList:
        """The same layers, each of which keeps only its input for the backward pass."""
        return nn.ModuleList(_Recomputed(layer, self) for layer in layers)


class _Recomputed(nn.Module):
    """One layer; whatever else is asked of it, the layer itself answers."""

    def __init__(self, layer: nn.Module, recomputation: Recomputation) -> None:
        super().__init__()
        self.layer = layer
        self._recomputation = recomputation

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.layer(*arguments, **options)
        again = self._recomputation.recall()
        return checkpoint(
            self.layer,
            *arguments,
            use_reentrant=False,
            preserve_rng_state=False,  # nothing is drawn: dropout is off
            context_fn=lambda: (nullcontext(), again),
            **options,
        )
