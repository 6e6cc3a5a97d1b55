"""One token at a time: the forward pass of generation, with a key-value cache.

transformers' own forward builds masks, copies keys and values and runs general code for each token of a response. If
`steps_directly` finds that `FastDecoder` computes the same, it is used; a model of another shape is stepped by its
own forward pass, which is slower. In both cases a few steps are compared with the full pass that trains
(`stepper_for`): if a cache gave other states, tokens would be sampled from another distribution than the trained one,
so then `WholeStepper` processes all tokens again for each token, which is slow and correct.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from triphase.batches.order import microbatches
from triphase.batches.transfers import index_on, to_device
from triphase.models.backbone import Backbone
from triphase.models.direct import FastDecoder
from triphase.models.direct_layer import DirectLayer, rotation_of
from triphase.models.layers import is_common
from triphase.models.products import product_dtype

_PROBE_LENGTH = 6
_PROMPTS = ((3, 5, 7, 11, 2), (4,), (6, 9))
_TOKENS = (8, 1, 9)
_PLACES = (0.5, 0.31, 0.77)
"""Probe tokens in the vocabulary: rarely used tokens at its start have states that rounding alone perturbs."""
_READ_TOKENS = 2048  # that `WholeStepper` processes at once
_FAILURES = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)

_log = logging.getLogger(__name__)


class HFDecoder:
    """Steps by the model's own forward pass, on left-padded rows; the attributes are those of `FastDecoder`."""

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
        """Process the prompts, with ``room`` for this many tokens after them."""
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), longest), pad_id, dtype=torch.long)
        mask = torch.zeros((len(prompts), longest + room), dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
            mask[row, longest - len(prompt) :] = True
        device = self._backbone.device
        ids, self._mask = to_device(ids, device), to_device(mask, device)
        positions = (self._mask[:, :longest].long().cumsum(1) - 1).clamp(min=0)
        # With the configuration, which says which layers keep a window or a state instead of keys and values.
        self._cache = DynamicCache(config=self._backbone.model.config)
        self.hidden = self._backbone.decode(ids, self._mask[:, :longest].long(), positions, self._cache)
        self._positions = positions[:, -1]
        self._length = longest

    def join(self, prompts: Sequence[Sequence[int]], *, pad_id: int, room: int) -> None:
        """Not supported: rows that are padded on the left start together."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, tokens: Tensor) -> None:
        """Process (B,) one more token per row."""
        self._positions = self._positions + 1
        self._length += 1
        mask = self._mask[:, : self._length].long()
        self.hidden = self._backbone.decode(tokens[:, None], mask, self._positions[:, None], self._cache)

    def keep(self, rows: Sequence[int]) -> None:
        """Continue with these rows only."""
        index = index_on(rows, self._mask.device)
        self.hidden, self._mask, self._positions = self.hidden[index], self._mask[index], self._positions[index]
        self._cache.reorder_cache(index)  # of layers that keep a state, too


class WholeStepper:
    """Processes all tokens of a row again at each step, by the pass that trains; attributes as in `FastDecoder`."""

    joins = True

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._rows: list[list[int]] = []
        self.hidden = torch.empty(0)

    def read(self, prompts: Sequence[Sequence[int]], *, pad_id: int, room: int) -> None:
        """Process the prompts."""
        self._rows = [list(prompt) for prompt in prompts]
        self.hidden = self._states(range(len(prompts)))

    def join(self, prompts: Sequence[Sequence[int]], *, pad_id: int, room: int) -> None:
        """Process more prompts, whose rows are appended after the existing ones."""
        count = len(self._rows)
        self._rows += [list(prompt) for prompt in prompts]
        self.hidden = torch.cat([self.hidden, self._states(range(count, len(self._rows)))])

    def step(self, tokens: Tensor) -> None:
        """Process (B,) one more token per row."""
        for row, token in zip(self._rows, tokens.tolist(), strict=True):
            row.append(token)
        self.hidden = self._states(range(len(self._rows)))

    def keep(self, rows: Sequence[int]) -> None:
        """Continue with these rows only."""
        self._rows = [self._rows[row] for row in rows]
        self.hidden = self.hidden[index_on(rows, self.hidden.device)]

    @torch.no_grad()
    def _states(self, numbers: Sequence[int]) -> Tensor:
        """(N, d) the hidden state of each row's last token; padding is on the right, where no token attends to it."""
        backbone, rows = self._backbone, [self._rows[number] for number in numbers]
        found = torch.empty((len(rows), backbone.hidden_size), dtype=backbone.dtype, device=backbone.device)
        lengths = [len(row) for row in rows]
        for group in microbatches(lengths, max_tokens=_READ_TOKENS, on_card=backbone.on_card):
            longest = max(len(rows[place]) for place in group)
            padded = [rows[place] + [0] * (longest - len(rows[place])) for place in group]
            last = index_on([len(rows[place]) - 1 for place in group], backbone.device)
            at = (torch.arange(len(group), device=backbone.device), last)
            ids = to_device(torch.tensor(padded), backbone.device)
            found[index_on(group, backbone.device)] = backbone.upper(backbone.trunk(ids), at=at)
        return found


Stepper = FastDecoder | HFDecoder | WholeStepper


def stepper_for(backbone: Backbone) -> type[Stepper]:
    """The fastest stepper whose states match the full pass. No adapter may be active."""
    kinds = ([FastDecoder] if steps_directly(backbone) else []) + [HFDecoder]
    for kind in kinds:
        if steps_rightly(kind, backbone):
            return kind
    _log.warning(
        "%s: its steps with a KV cache differ from its full forward pass, so each token is "
        "sampled by a forward pass over the whole text, which is slow; a model of the Llama, "
        "Mistral or Qwen family is faster",
        type(backbone.model).__name__,
    )
    return WholeStepper


def steps_rightly(kind: type[Stepper], backbone: Backbone) -> bool:
    """Whether a stepper's states match the full pass: after prompts of several lengths, some steps, and one row less.

    A wrong cache is wrong for all tokens. In bfloat16 a few tokens have states that rounding alone changes a lot (a row
    with SmolLM2's token 1 moved by 60 %, all others by under 0.01 %), so one of three probes that agrees is enough.
    """
    return any(_steps_rightly(kind, backbone, int(place * len(backbone.head_weight))) for place in _PLACES)


@torch.no_grad()
def _steps_rightly(kind: type[Stepper], backbone: Backbone, first: int) -> bool:
    """Whether they match for the tokens after ``first``."""
    vocabulary = len(backbone.head_weight)
    rows = [[(first + token) % vocabulary for token in prompt] for prompt in _PROMPTS]
    try:
        stepper = kind(backbone)
        stepper.read(rows, pad_id=0, room=len(_TOKENS))
        for number, token in enumerate(_TOKENS):
            if not _are_states_of(stepper.hidden, rows, backbone):
                return False
            if number == len(_TOKENS) - 1:
                stepper.keep([0, 2])
                rows = [rows[0], rows[2]]
            following = (first + token) % vocabulary
            stepper.step(torch.full((len(rows),), following, device=backbone.device))
            rows = [[*row, following] for row in rows]
        return _are_states_of(stepper.hidden, rows, backbone)
    except _FAILURES:
        return False  # its cache is of another kind


def _are_states_of(hidden: Tensor, rows: Sequence[Sequence[int]], backbone: Backbone) -> bool:
    """(B, d) against the full pass over each row alone; in bfloat16 the two round differently."""
    allowed = 1e-3 if backbone.dtype == torch.float32 else 0.1
    for row, found in zip(rows, hidden.float(), strict=True):
        own = backbone.upper(backbone.trunk(torch.tensor([row], device=backbone.device)))[0, -1].float()
        if not float((found - own).norm()) <= allowed * float(own.norm()):
            return False
    return True


def steps_directly(backbone: Backbone) -> bool:
    """Whether `FastDecoder` computes what the layers compute; False for a layer that it cannot run."""
    try:
        return _computes_the_same(backbone)
    except _FAILURES:
        return False


@torch.no_grad()
def _computes_the_same(backbone: Backbone) -> bool:
    """Whether `FastDecoder` does what the model's own forward pass does.

    It compares the input of the first layer, each layer individually on the model's own input to it, and the final
    norm: over many layers of bfloat16 the two would drift apart by rounding alone.
    """
    if not has_common_shape(backbone):
        return False
    ids = torch.arange(_PROBE_LENGTH, device=backbone.device)[None] * 7 % backbone.head_weight.shape[0]
    states = _states(backbone, ids)
    dtype = product_dtype(backbone.head_weight)
    if not torch.equal(states[0], backbone.embed(ids[0])):
        return False
    places = torch.arange(_PROBE_LENGTH, device=ids.device)[:, None]
    rotation = rotation_of(backbone, states[0].to(dtype)[:, None], places)
    for layer, given, own in zip(backbone.layers, states, states[1:], strict=False):
        direct, x = DirectLayer(layer), given.to(dtype)
        if not _agree(given, own, direct.finish(x, direct.attend(x, rotation, 1)[0])):
            return False
    return torch.equal(backbone.norm(states[-2]), states[-1])


def has_common_shape(backbone: Backbone) -> bool:
    """Whether the layers have the shape that `FastDecoder` supports, with their weights present; `steps_directly`
    compares what they compute."""
    return not backbone.sharded and all(is_common(layer) for layer in backbone.layers) and backbone.attends_fully


def _states(backbone: Backbone, ids: Tensor) -> list[Tensor]:
    """(T, d) the input of each layer in the model's own forward pass, the output of the last one, and the final."""
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
    """Token by token: the difference is small relative to what the layer adds, and to the rounding of the sum."""
    tolerance, rounding = (1e-4 if own.dtype == torch.float32 else 5e-2), 4 * torch.finfo(own.dtype).eps
    given, own, direct = given.float(), own.float(), direct.float()
    allowed = tolerance * (own - given).norm(dim=1) + rounding * own.norm(dim=1)
    return bool(((direct - own).norm(dim=1) <= allowed).all())
