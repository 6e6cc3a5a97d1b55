"""The last layer for selected tokens only: what no head reads is not computed.

    h = x[at] + W_o·attention(norm(x))[at],   out = h + mlp(norm(h))

Heads read few of the states after the last layer: those that predict a response token, or one per response. Keys and
values of the last layer are needed from every token; its output projection and its MLP, five sixths of the weights of a
layer, only for the selected ones.
"""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor, nn

TokenPositions = tuple[Tensor, Tensor]
"""(N,) rows and (N,) positions of N tokens of a batch; a token may occur more than once."""


class WrappedLayer(nn.Module):
    """A layer that wraps another; every other attribute is that of the wrapped layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


class FirstLayer(WrappedLayer):
    """The first of the upper layers, which gets the boundary itself if the decoder would change it on the way.

    Some decoders add positions to their input embeddings (GPT-2, OPT), scale them (Granite) or normalize them (BLOOM).
    All of that was done before the boundary.

    Attributes:
        boundary: (B, L, d) the layer's input instead; None is the input from the decoder.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.boundary: Tensor | None = None

    @contextmanager
    def given(self, boundary: Tensor | None) -> Iterator[None]:
        """Set these states as the input temporarily."""
        before, self.boundary = self.boundary, boundary
        try:
            yield
        finally:
            self.boundary = before

    def as_now(self) -> AbstractContextManager[None]:
        """A context in which the input is the current one."""
        return self.given(self.boundary)

    def forward(self, hidden_states: Tensor, *arguments: Any, **options: Any) -> Any:
        """The layer's output."""
        return self.layer(hidden_states if self.boundary is None else self.boundary, *arguments, **options)


class LastLayer(WrappedLayer):
    """A layer of the common shape that returns (N, d) states of selected tokens, or (B, L, d) of all by default.

    Attributes:
        at: the selected tokens; None is all.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.at: TokenPositions | None = None

    @contextmanager
    def selecting(self, at: TokenPositions | None) -> Iterator[None]:
        """Select tokens temporarily."""
        before, self.at = self.at, at
        try:
            yield
        finally:
            self.at = before

    def as_now(self) -> AbstractContextManager[None]:
        """A context in which the currently selected tokens are selected."""
        return self.selecting(self.at)

    def forward(self, hidden_states: Tensor, *arguments: Any, **options: Any) -> Any:
        """(B, L, d) → (N, d), or (B, L, d) if nothing is selected."""
        if self.at is None:
            return self.layer(hidden_states, *arguments, **options)
        layer: Any = self.layer
        # The attention without its output projection, which follows for the selected tokens. The copy shares all
        # weights.
        attention = copy.copy(layer.self_attn)
        attention._modules = {**layer.self_attn._modules, "o_proj": nn.Identity()}
        mixed = attention(hidden_states=layer.input_layernorm(hidden_states), **options)[0]
        x = gather_positions(hidden_states, self.at) + layer.self_attn.o_proj(gather_positions(mixed, self.at))
        return x + layer.mlp(layer.post_attention_layernorm(x))


def gather_positions(x: Tensor, at: TokenPositions) -> Tensor:
    """(B, L, d) → (N, d) rows of the selected tokens."""
    rows, positions = at
    # One flat index: the backward pass of this is several times faster than that of two.
    return x.flatten(0, 1).index_select(0, rows * x.shape[1] + positions)


def is_common(layer: nn.Module) -> bool:
    """Whether a layer is of the common shape (Llama, Mistral, Qwen 2 and 3): two norms, separate projections."""
    attention, mlp = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
    parts = ("q_proj", "k_proj", "v_proj", "o_proj", "head_dim", "scaling")
    norms = {name for name, child in layer.named_children() if "norm" in name}
    return (
        attention is not None
        and all(hasattr(attention, part) for part in parts)
        and all(hasattr(mlp, part) for part in ("gate_proj", "up_proj", "down_proj", "act_fn"))
        and norms == {"input_layernorm", "post_attention_layernorm"}
    )
