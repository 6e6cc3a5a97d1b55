"""One token at a time: the forward pass of generation, with a key-value cache.

transformers' own forward builds masks, copies keys and values and walks through general code for each of the tokens
of a response. Where `steps_directly` finds that `DirectStepper` gives the same hidden states, that one is used; a model
of another shape is stepped by its own forward pass, which is right and slower.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from triphase.models.backbone import Backbone
from triphase.models.direct import DirectStepper

_PROBE_LENGTH = 6


class OwnStepper:
    """Steps by the model's own forward pass, on left-padded rows; the attributes are those of `DirectStepper`."""

    joins = False

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.hidden = torch.empty(0)
        self._cache: Any = None
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

    def join(self, prompts: Sequence[Sequence[int]], *, pad_id: int, room: int) -> None:
        """Not here: rows that are padded on the left begin together."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, tokens: Tensor) -> None:
        """Read (B,) one more token a row."""
        self._positions = self._positions + 1
        self._length += 1
        mask = self._mask[:, : self._length].long()
        self.hidden = self._backbone.decode(tokens[:, None], mask, self._positions[:, None], self._cache)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""
        index = torch.tensor(rows, device=self._mask.device)
        self.hidden, self._mask, self._positions = self.hidden[index], self._mask[index], self._positions[index]
        self._cache.batch_select_indices(index)


def steps_directly(backbone: Backbone) -> bool:
    """Whether `DirectStepper` gives what the model's own forward pass gives, on prompts of two lengths and two steps."""
    if not all(_is_common(layer) for layer in backbone.layers) or not backbone.attends_fully:
        return False
    vocabulary = backbone.head_weight.shape[0]
    prompts = [[(7 * row + 3 * place) % vocabulary for place in range(_PROBE_LENGTH - row)] for row in range(2)]
    own, direct = OwnStepper(backbone), DirectStepper(backbone)
    own.read(prompts, pad_id=0, room=2)
    direct.read(prompts, pad_id=0, room=2)
    if not _agree(own.hidden, direct.hidden, backbone.dtype):
        return False
    for token in (1, 2):
        tokens = torch.full((2,), token % vocabulary, device=backbone.device)
        own.step(tokens)
        direct.step(tokens)
        if not _agree(own.hidden, direct.hidden, backbone.dtype):
            return False
    return True


def _agree(own: Tensor, direct: Tensor, dtype: torch.dtype) -> bool:
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    scale = max(1.0, float(own.float().abs().max()))
    return float((own.float() - direct.float()).abs().max()) <= tolerance * scale


def _is_common(layer: nn.Module) -> bool:
    attention, mlp = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
    parts = ("q_proj", "k_proj", "v_proj", "o_proj", "head_dim", "scaling")
    norms = {name for name, child in layer.named_children() if "norm" in name}
    return (
        attention is not None
        and all(hasattr(attention, part) for part in parts)
        and all(hasattr(mlp, part) for part in ("gate_proj", "up_proj", "down_proj", "act_fn"))
        and norms == {"input_layernorm", "post_attention_layernorm"}
    )
