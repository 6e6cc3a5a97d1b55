"""One token at a time: the forward pass of generation, with a key-value cache.

transformers' own forward builds masks, copies keys and values and walks through general code for each of the tokens
of a response. Where `steps_directly` finds that `DirectStepper` gives the same, that one is used; a model of another
shape is stepped by its own forward pass, which is right and slower.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from triphase.models.backbone import Backbone
from triphase.models.direct import DirectLayer
from triphase.models.layers import is_common
from triphase.models.products import product_dtype

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


@torch.no_grad()
def steps_directly(backbone: Backbone) -> bool:
    """Whether `DirectStepper` does what the model's own forward pass does.

    Compared are what the first layer is given, each layer by itself on what the model gives it, and the final norm:
    over many layers of bfloat16 the two would drift apart by rounding alone.
    """
    if not has_common_shape(backbone):
        return False
    ids = torch.arange(_PROBE_LENGTH, device=backbone.device)[None] * 7 % backbone.head_weight.shape[0]
    states = _states(backbone, ids)
    dtype = product_dtype(backbone.head_weight)
    if not torch.equal(states[0], backbone.embed(ids[0])):
        return False
    rotation = backbone.rotary(states[0].to(dtype)[:, None], torch.arange(_PROBE_LENGTH, device=ids.device)[:, None])
    for layer, given, own in zip(backbone.layers, states, states[1:], strict=False):
        direct, x = DirectLayer(layer), given.to(dtype)
        if not _agree(given, own, direct.finish(x, direct.attend(x, rotation, 1)[0])):
            return False
    return torch.equal(backbone.norm(states[-2]), states[-1])


def has_common_shape(backbone: Backbone) -> bool:
    """Whether the layers are of the shape that `DirectStepper` knows; `steps_directly` compares what they compute."""
    return all(is_common(layer) for layer in backbone.layers) and backbone.attends_fully


def _states(backbone: Backbone, ids: Tensor) -> list[Tensor]:
    """(T, d) what each layer is given in the model's own forward pass, what the last one returns, and the final."""
    found: list[Tensor] = []

    def note(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        found.append((arguments[0] if arguments else named["hidden_states"])[0])
        if module is backbone.layers[-1]:
            found.append((output[0] if isinstance(output, tuple) else output)[0])

    hooks = [layer.register_forward_hook(note, with_kwargs=True) for layer in backbone.layers]
    try:
        final = backbone.whole(ids)[0]
    finally:
        for hook in hooks:
            hook.remove()
    return [*found, final]


def _agree(given: Tensor, own: Tensor, direct: Tensor) -> bool:
    """Token by token: the difference is small beside what the layer adds, and the rounding of the sum."""
    tolerance, rounding = (1e-4 if own.dtype == torch.float32 else 5e-2), 4 * torch.finfo(own.dtype).eps
    given, own, direct = given.float(), own.float(), direct.float()
    allowed = tolerance * (own - given).norm(dim=1) + rounding * own.norm(dim=1)
    return bool(((direct - own).norm(dim=1) <= allowed).all())
