"""The last layer for chosen tokens alone: what no head reads is not computed.

    h = x[at] + W_o·attention(norm(x))[at],   out = h + mlp(norm(h))

Heads read few of the states after the last layer: those that predict a response token, or one for each response. Keys
and values of the last layer are needed from every token; its output projection and its MLP, five sixths of the weights
of a layer, for those few alone.
"""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor, nn

Tokens = tuple[Tensor, Tensor]
"""(N,) rows and (N,) positions of N tokens of a batch; one may come more than once."""


class WrappedLayer(nn.Module):
    """A layer in another's place; whatever else is asked of it, the layer itself answers."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


class FirstLayer(WrappedLayer):
    """The first of the upper layers, which is given the boundary itself where the decoder would change it on the way.

    Some decoders add positions to what they are given (GPT-2, OPT), scale it (Granite) or norm it (BLOOM), whatever it
    is. All of that was done on the way to the boundary.

    Attributes:
        boundary: (B, L, d) what the layer is given instead; None is what the decoder gives it.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.boundary: Tensor | None = None

    @contextmanager
    def given(self, boundary: Tensor | None) -> Iterator[None]:
        """Give it these states for a while."""
        before, self.boundary = self.boundary, boundary
        try:
            yield
        finally:
            self.boundary = before

    def as_now(self) -> AbstractContextManager[None]:
        """A context in which it is given what it is given now."""
        return self.given(self.boundary)

    def forward(self, hidden_states: Tensor, *arguments: Any, **options: Any) -> Any:
        """What the layer gives."""
        return self.layer(hidden_states if self.boundary is None else self.boundary, *arguments, **options)


class LastLayer(WrappedLayer):
    """A layer of the common shape that gives (N, d) states of chosen tokens; those of all, (B, L, d), without a choice.

    Attributes:
        at: the chosen tokens; None is all.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.at: Tokens | None = None

    @contextmanager
    def choosing(self, at: Tokens | None) -> Iterator[None]:
        """Choose tokens for a while."""
        before, self.at = self.at, at
        try:
            yield
        finally:
            self.at = before

    def as_now(self) -> AbstractContextManager[None]:
        """A context in which those are chosen that are chosen now."""
        return self.choosing(self.at)

    def forward(self, hidden_states: Tensor, *arguments: Any, **options: Any) -> Any:
        """(B, L, d) → (N, d), or (B, L, d) where nothing is chosen."""
        if self.at is None:
            return self.layer(hidden_states, *arguments, **options)
        layer: Any = self.layer
        # The attention without its output projection, which follows for the chosen ones. The copy shares all weights.
        attention = copy.copy(layer.self_attn)
        attention._modules = {**layer.self_attn._modules, "o_proj": nn.Identity()}
        mixed = attention(hidden_states=layer.input_layernorm(hidden_states), **options)[0]
        x = chosen(hidden_states, self.at) + layer.self_attn.o_proj(chosen(mixed, self.at))
        return x + layer.mlp(layer.post_attention_layernorm(x))


def chosen(x: Tensor, at: Tokens) -> Tensor:
    """(B, L, d) → (N, d) rows of the chosen tokens."""
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
