"""One token at a time: the forward pass of generation, with a key-value cache that is allocated once.

transformers' own forward builds masks, copies keys and values and walks through general code for each of the tokens
of a response. For layers of the common shape (Llama, Mistral, Qwen 2 and 3, SmolLM: separate projections, rotary
positions, two norms) the same modules are called directly here. `TokenStepper.fits` compares one step with the
model's own; a model of another shape is stepped by its own forward pass, which is right and slower.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from triphase.models.backbone import Backbone

_PROBE_LENGTH = 6


class TokenStepper:
    """Keys and values of a batch of rows, left-padded, and the step that reads one more token a row.

    Attributes:
        hidden: (B, d) hidden state after the final norm, from which the next token is predicted.
    """

    def __init__(self, backbone: Backbone, *, direct: bool) -> None:
        self._backbone = backbone
        self._direct = direct
        self.hidden = torch.empty(0)
        self._cache: Any = None
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._bias = torch.empty(0)
        self._mask = torch.empty(0)
        self._positions = torch.empty(0)
        self._length = 0

    @torch.no_grad()
    def read(self, prompts: Sequence[Sequence[int]], *, pad_id: int, room: int) -> None:
        """Read the prompts, with ``room`` for as many tokens after them."""
        from transformers import DynamicCache

        longest = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), longest), pad_id, dtype=torch.long)
        mask = torch.zeros((len(prompts), longest + room), dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
            mask[row, longest - len(prompt) :] = True
        device = self._backbone.device
        ids, self._mask = ids.to(device), mask.to(device)
        positions = (self._mask[:, :longest].long().cumsum(1) - 1).clamp(min=0)
        self._cache = DynamicCache()
        self.hidden = self._backbone.decode(ids, self._mask[:, :longest].long(), positions, self._cache)
        self._positions = positions[:, -1]
        self._length = longest
        if self._direct:
            self._keys = [self._roomy(layer.keys, room) for layer in self._cache.layers]
            self._values = [self._roomy(layer.values, room) for layer in self._cache.layers]
            self._cache = None
            self._bias = torch.zeros(self._mask.shape, dtype=self.hidden.dtype, device=device)
            self._bias.masked_fill_(~self._mask, float("-inf"))

    @torch.no_grad()
    def step(self, tokens: Tensor) -> None:
        """Read (B,) one more token a row."""
        self._positions = self._positions + 1
        self._length += 1
        if self._direct:
            self.hidden = self._direct_step(tokens)
            return
        mask = self._mask[:, : self._length].long()
        self.hidden = self._backbone.decode(tokens[:, None], mask, self._positions[:, None], self._cache)

    def keep(self, rows: list[int]) -> None:
        """Drop all other rows."""
        index = torch.tensor(rows, device=self._mask.device)
        self.hidden, self._mask, self._positions = self.hidden[index], self._mask[index], self._positions[index]
        if self._direct:
            self._bias = self._bias[index]
            self._keys = [keys[index] for keys in self._keys]
            self._values = [values[index] for values in self._values]
        else:
            self._cache.batch_select_indices(index)

    @classmethod
    def fits(cls, backbone: Backbone) -> bool:
        """Whether the direct step gives what the model's own forward pass gives, on padded rows, over two steps."""
        if not cls.has_common_shape(backbone):
            return False
        vocabulary = backbone.head_weight.shape[0]
        prompts = [[(7 * row + 3 * place) % vocabulary for place in range(_PROBE_LENGTH - row)] for row in range(2)]
        own, direct = cls(backbone, direct=False), cls(backbone, direct=True)
        tolerance = 1e-4 if backbone.dtype == torch.float32 else 5e-2
        for stepper in (own, direct):
            stepper.read(prompts, pad_id=0, room=2)
        for token in (1, 2):
            for stepper in (own, direct):
                stepper.step(torch.full((2,), token % vocabulary, device=backbone.device))
            scale = float(own.hidden.float().abs().max())
            if float((own.hidden - direct.hidden).float().abs().max()) > tolerance * max(1.0, scale):
                return False
        return True

    @staticmethod
    def has_common_shape(backbone: Backbone) -> bool:
        """Whether the layers are of the shape that the direct step knows; `fits` compares what they compute."""
        return all(_is_common(layer) for layer in backbone.layers) and backbone.attends_fully

    def _direct_step(self, tokens: Tensor) -> Tensor:
        backbone, place, rows = self._backbone, self._length - 1, len(tokens)
        x: Tensor = backbone.embed(tokens)
        cosine, sine = backbone.rotary(x[:, None], self._positions[:, None])
        bias = self._bias[:, None, None, : self._length]
        layer: Any
        for index, layer in enumerate(backbone.layers):
            attention, width = layer.self_attn, layer.self_attn.head_dim
            h = layer.input_layernorm(x)
            query, key, value = (
                projection(h).view(rows, -1, width)
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            if hasattr(attention, "q_norm"):
                query, key = attention.q_norm(query), attention.k_norm(key)
            query = query * cosine + _turned(query) * sine
            self._keys[index][:, :, place] = key * cosine + _turned(key) * sine
            self._values[index][:, :, place] = value
            # Query heads that share a key head stand beside one another: they attend as several queries of one head.
            mixed = nn.functional.scaled_dot_product_attention(
                query.view(rows, value.shape[1], -1, width),
                self._keys[index][:, :, : self._length],
                self._values[index][:, :, : self._length],
                attn_mask=bias,
                scale=attention.scaling,
            )
            x = x + attention.o_proj(mixed.reshape(rows, -1))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        hidden: Tensor = backbone.norm(x)
        return hidden

    @staticmethod
    def _roomy(states: Tensor, room: int) -> Tensor:
        rows, heads, length, width = states.shape
        grown = states.new_zeros((rows, heads, length + room, width))
        grown[:, :, :length] = states
        return grown


def _turned(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat([-x[..., half:], x[..., :half]], dim=-1)


def _is_common(layer: nn.Module) -> bool:
    attention = getattr(layer, "self_attn", None)
    parts = ("q_proj", "k_proj", "v_proj", "o_proj", "head_dim", "scaling")
    norms = {name for name, child in layer.named_children() if "norm" in name}
    return (
        attention is not None
        and all(hasattr(attention, part) for part in parts)
        and all(hasattr(getattr(layer, "mlp", None), part) for part in ("gate_proj", "up_proj", "down_proj"))
        and norms == {"input_layernorm", "post_attention_layernorm"}
    )
