"""Adapted layers compiled by `torch.compile`, if `model.compile_layers` asks for it.

Compiled once for each adapter, with and without gradients, for any number of rows and tokens. Intermediate values are
rounded as without it, so that a rollout and the first update that reads it agree. Without a compiler, or for a layer
that it cannot take, the layer itself runs, and one line says why.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from triphase.models.layers import LastLayer, WrappedLayer

# Graphs of one layer: each adapter, with and without gradients, with and without an attention mask.
_MOST_GRAPHS = 64
_log = logging.getLogger(__name__)


class Compilation:
    """What the compiled layers of one model share.

    Attributes:
        reason: why nothing is compiled any more; None while it works.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        config = torch._dynamo.config
        config.recompile_limit = max(config.recompile_limit, _MOST_GRAPHS)
        config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, 4 * _MOST_GRAPHS)
        self._run: Callable[..., Any] = torch.compile(
            _run_layer, dynamic=True, options={"emulate_precision_casts": True}
        )

    def run(self, layer: nn.Module, *arguments: Any, **options: Any) -> Any:
        """The layer's output."""
        if self.reason is None:
            try:
                return self._run(layer, arguments, options)
            except torch._dynamo.exc.TorchDynamoException as error:
                self._go_without(error)
        return layer(*arguments, **options)

    def _go_without(self, error: Exception) -> None:
        cause = getattr(error, "inner_exception", None) or error
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        self.reason = f"{type(cause).__name__}: {lines[0][:200] if lines else 'no message'}"
        _log.warning("model.compile_layers: layers are not compiled (%s)", self.reason)

    def wrap(self, layers: nn.ModuleList) -> None:
        """Compile each layer in place, but for the one that selects tokens: its shapes follow the data."""
        for number, layer in enumerate(layers):
            inner: Any = layer
            outer: Any = None
            while isinstance(inner, WrappedLayer) and not isinstance(inner, LastLayer):
                outer, inner = inner, inner.layer
            if isinstance(inner, LastLayer):
                continue
            if outer is None:
                layers[number] = CompiledLayer(inner, self)
            else:
                outer.layer = CompiledLayer(inner, self)


class CompiledLayer(WrappedLayer):
    """A layer whose forward pass is compiled."""

    def __init__(self, layer: nn.Module, compilation: Compilation) -> None:
        super().__init__(layer)
        self._compilation = compilation

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """The layer's output."""
        return self._compilation.run(self.layer, *arguments, **options)


def _run_layer(layer: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return layer(*arguments, **options)
