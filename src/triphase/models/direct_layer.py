"""One layer of the common shape in two halves, before and after its attention, as `FastDecoder` runs it."""

from typing import Any

import torch
from torch import Tensor, nn

from triphase.models.backbone import Backbone
from triphase.models.norms import norm_of
from triphase.models.products import FusedLinear


class DirectLayer:
    """One layer in two halves, before and after its attention; M tokens.

    Attributes:
        rotates_together: queries and keys are rotated by the same kernels, on a GPU if neither has a norm.
    """

    def __init__(self, layer: Any, *, packed: bool = False) -> None:
        """``packed``: see `FusedLinear`."""
        attention = layer.self_attn
        self._layer, self._attention = layer, attention
        self.width: int = attention.head_dim
        self.scaling: float = attention.scaling
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        self._project = FusedLinear(projections, packed=packed)
        self.key_heads = self._project.sizes[1] // self.width
        self._output = FusedLinear([attention.o_proj], packed=packed)
        self._widen = FusedLinear([layer.mlp.gate_proj, layer.mlp.up_proj], packed=packed)
        self._narrow = FusedLinear([layer.mlp.down_proj], packed=packed)
        self.rotates_together = layer.input_layernorm.weight.is_cuda and not hasattr(attention, "q_norm")
        self._norms = norm_of(layer.input_layernorm), norm_of(layer.post_attention_layernorm)

    def refresh(self) -> None:
        """See `FastDecoder.refresh`."""
        for maps in (self._project, self._output, self._widen, self._narrow):
            maps.refresh()

    def project(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """(M, d) and the `rotation_of` each token → queries, keys (both rotated) and values, each (M, heads, width)."""
        joint = self._project(self._norms[0](x).t()).t().contiguous()
        heads = joint.view(len(x), -1, self.width)
        counts = [size // self.width for size in self._project.sizes]
        if self.rotates_together:
            turned = _turned(heads[:, : counts[0] + counts[1]], rotation)
            return turned[:, : counts[0]], turned[:, counts[0] :], heads[:, counts[0] + counts[1] :]
        query, key, value = torch.split(heads, counts, dim=1)
        if hasattr(self._attention, "q_norm"):
            query, key = self._attention.q_norm(query), self._attention.k_norm(key)
        return _turned(query, rotation), _turned(key, rotation), value

    def attend(self, x: Tensor, rotation: tuple[Tensor, Tensor], count: int) -> tuple[Tensor, Tensor, Tensor]:
        """(count · T, d) right-padded rows of T tokens → attention output (count · T, heads · width), and keys and
        values (count, heads, T, width)."""
        query, key, value = (
            part.view(count, -1, part.shape[1], self.width).transpose(1, 2) for part in self.project(x, rotation)
        )
        groups = query.shape[1] // self.key_heads
        # Padding is on the right, where no real token attends to it.
        mixed = nn.functional.scaled_dot_product_attention(
            query,
            key.repeat_interleave(groups, dim=1),
            value.repeat_interleave(groups, dim=1),
            is_causal=True,
            scale=self.scaling,
        )
        return mixed.transpose(1, 2).reshape(len(x), -1), key, value

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """(M, d) the layer's input and (M, heads · width) attention output → (M, d) the layer's output."""
        x = x + self._output(mixed.t()).t()
        gate, up = self._widen(self._norms[1](x).t()).chunk(2)
        return x + self._narrow(self._layer.mlp.act_fn(gate).mul_(up)).t()


def _turned(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """(M, heads, width) of M tokens, each rotated by its own `rotation_of`."""
    cosine, sine = rotation
    return x * cosine + x.roll(x.shape[-1] // 2, -1) * sine


def rotation_of(backbone: Backbone, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine, and sine with its first half negated: the rotated tensor then only needs a roll."""
    cosine, sine = backbone.rotary(x, positions)
    half = sine.shape[-1] // 2
    return cosine, torch.cat([-sine[..., :half], sine[..., half:]], dim=-1)
