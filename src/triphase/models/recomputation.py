"""Activations that are computed again in the backward pass instead of kept (gradient checkpointing, arXiv 1604.06174).

Kept is the input of each layer, (B, L, d); one layer's activations exist at a time. The layer runs twice, by the same
operations on the same numbers, so gradients are the same to the bit.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from triphase.models.layers import WrappedLayer

Recall = Callable[[], AbstractContextManager[None]]
"""Called in the forward pass: gives a context in which everything is as it is then."""


class Recomputation:
    """What the layers of one model have in common when they run again.

    Attributes:
        recalls: by the time of the backward pass another adapter may be at work, other tokens be chosen; each of
            these brings one such thing back.
    """

    def __init__(self) -> None:
        self.recalls: list[Recall] = []

    def recall(self) -> AbstractContextManager[None]:
        """A context in which all is as it is now."""
        return _all([recall() for recall in self.recalls])

    def wrap(self, layers: nn.ModuleList) -> nn.ModuleList:
        """The same layers, each of which keeps only its input for the backward pass."""
        return nn.ModuleList(Recomputed(layer, self) for layer in layers)


@contextmanager
def _all(contexts: Sequence[AbstractContextManager[None]]) -> Iterator[None]:
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


class Recomputed(WrappedLayer):
    """A layer that keeps only its input for the backward pass, and runs again there."""

    def __init__(self, layer: nn.Module, recomputation: Recomputation) -> None:
        super().__init__(layer)
        self._recomputation = recomputation

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
