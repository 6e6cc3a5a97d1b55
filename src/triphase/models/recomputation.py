"""Activation recomputation in the backward pass (gradient checkpointing, arXiv 1604.06174).

Stored is the input of each layer, (B, L, d); one layer's activations are in memory at a time. The layer runs twice,
with the same operations on the same numbers, so gradients are the same to the bit.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from triphase.models.layers import WrappedLayer

RestoreHook = Callable[[], AbstractContextManager[None]]
"""Called in the forward pass: returns a context that restores the state of that moment."""


class Recomputation:
    """What the layers of one model have in common when they run again.

    Attributes:
        restore_hooks: by the time of the backward pass another adapter may be active, or other tokens selected; each
            of these restores one such state.
    """

    def __init__(self) -> None:
        self.restore_hooks: list[RestoreHook] = []

    def restored(self) -> AbstractContextManager[None]:
        """A context that restores the current state."""
        return _all([hook() for hook in self.restore_hooks])

    def wrap(self, layers: nn.ModuleList) -> nn.ModuleList:
        """The same layers, each of which stores only its input for the backward pass."""
        return nn.ModuleList(Recomputed(layer, self) for layer in layers)


@contextmanager
def _all(contexts: Sequence[AbstractContextManager[None]]) -> Iterator[None]:
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


class Recomputed(WrappedLayer):
    """A layer that stores only its input for the backward pass, and runs again there."""

    def __init__(self, layer: nn.Module, recomputation: Recomputation) -> None:
        super().__init__(layer)
        self._recomputation = recomputation

    def forward(self, *arguments: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.layer(*arguments, **options)
        again = self._recomputation.restored()
        return checkpoint(
            self.layer,
            *arguments,
            use_reentrant=False,
            preserve_rng_state=False,  # no random numbers are drawn: dropout is off
            context_fn=lambda: (nullcontext(), again),
            **options,
        )
