"""Generation by calling the modules of a decoder of the common shape one by one, with a preallocated cache.

The shape is that of Llama, Mistral, Qwen 2 and 3, SmolLM: separate projections, rotary positions, two norms. Keys and
values of a row start at position 0, so rows of different age share a batch and new ones join at any time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from triphase.batches.order import microbatches
from triphase.batches.transfers import index_on, to_device
from triphase.models.backbone import Backbone
from triphase.models.direct_layer import DirectLayer, rotation_of
from triphase.models.products import product_dtype

# Prompts are processed in groups of this many padded tokens: larger groups are not faster, and their activations take
# memory. With smaller ones a GPU waits for launches.
_READ_TOKENS, _GPU_READ_TOKENS = 2048, 8192


class FastDecoder:
    """Keys and values of a batch of rows, and the step that processes one more token per row.

    The adapter that is active when this is constructed is the one that is used.

    Attributes:
        hidden: (B, d) hidden state after the final norm, from which the next token is predicted.
        keeps_boundary: whether the states of the trunk (`Backbone`) are kept in the next two.
        boundary: (B, d) of the token that was processed last.
        read_boundary: (T, d) of each token of the prompts that were processed last, in their order.
        joins: True: rows may join others.
    """

    joins = True
    keeps_boundary = False

    @torch.no_grad()
    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.boundary = torch.empty(0)
        self.read_boundary: list[Tensor] = []
        self._dtype = product_dtype(backbone.head_weight)
        self._layers = [DirectLayer(layer, packed=backbone.packed_decoding) for layer in backbone.layers]
        self.hidden = torch.empty(0)
        self._keys: list[Tensor] = []  # of each layer (B, heads, capacity, width)
        self._values: list[Tensor] = []
        self._bias = torch.empty(0)  # (B, capacity) 0 where the row has a token, else -inf
        self._places = torch.empty(0)  # (B,) position of the row's last token
        self._length = 0  # the longest row

    @property
    def device(self) -> torch.device:
        """The device of the base."""
        return self._backbone.device

    @property
    def _capacity(self) -> int:
        return self._bias.shape[1]

    @torch.no_grad()
    def read(self, prompts: Sequence[Sequence[int]], *, pad_id: int, room: int) -> None:
        """Process the prompts, with ``room`` for this many tokens after them. A repeated prompt is processed once."""
        given = [tuple(prompt) for prompt in prompts]
        unique = list(dict.fromkeys(given))
        lengths = [len(prompt) for prompt in unique]
        device, capacity = self._backbone.device, max(lengths) + room
        heads = [layer.key_heads for layer in self._layers]
        widths = [layer.width for layer in self._layers]
        shapes = [(len(unique), count, capacity, width) for count, width in zip(heads, widths, strict=True)]
        # Zeros, not uninitialized memory: a masked position weighs 0, and 0 × NaN is NaN.
        self._keys = [torch.zeros(shape, dtype=self._dtype, device=device) for shape in shapes]
        self._values = [torch.zeros(shape, dtype=self._dtype, device=device) for shape in shapes]
        self.hidden = torch.empty((len(unique), self._backbone.hidden_size), dtype=self._dtype, device=device)
        most = _GPU_READ_TOKENS if self._backbone.on_card else _READ_TOKENS
        trunk_states: dict[tuple[int, ...], Tensor] = {}
        for rows in microbatches(lengths, max_tokens=most, on_card=self._backbone.on_card):
            these = [unique[row] for row in rows]
            self.hidden[index_on(rows, device)] = self._read_rows(rows, these, pad_id)
            if self.keeps_boundary:
                states = self.boundary.view(len(rows), -1, self._backbone.hidden_size)
                trunk_states |= {prompt: row[: len(prompt)] for prompt, row in zip(these, states, strict=True)}
        self.read_boundary = [trunk_states[prompt] for prompt in given] if self.keeps_boundary else []
        self._places = index_on(lengths, device) - 1
        self._bias = torch.full((len(unique), capacity), float("-inf"), dtype=self._dtype, device=device)
        self._bias.masked_fill_(torch.arange(capacity, device=device) <= self._places[:, None], 0.0)
        self._length = max(lengths)
        if len(unique) < len(given):
            row_of = {prompt: row for row, prompt in enumerate(unique)}
            self.keep([row_of[prompt] for prompt in given])

    @torch.no_grad()
    def join(self, prompts: Sequence[Sequence[int]], *, pad_id: int, room: int) -> None:
        """Process more prompts, whose rows are appended after the existing ones."""
        keys, values, hidden, bias = self._keys, self._values, self.hidden, self._bias
        places, length = self._places, self._length
        self.read(prompts, pad_id=pad_id, room=room)
        capacity = max(self._capacity, bias.shape[1])
        for olds, news in ((keys, self._keys), (values, self._values)):
            for number in range(len(news)):  # layer by layer, so that the cache is never in memory twice
                news[number] = olds[number] = _stacked(olds[number], news[number], capacity)
        self._bias = torch.cat([_padded(old, capacity) for old in (bias, self._bias)])
        self._places = torch.cat([places, self._places])
        self.hidden = torch.cat([hidden, self.hidden])
        self._length = max(length, self._length)

    def keep(self, rows: Sequence[int]) -> None:
        """Continue with these rows only, in this order."""
        index = index_on(rows, self._bias.device)
        self.hidden, self._bias, self._places = self.hidden[index], self._bias[index], self._places[index]
        for cache in (self._keys, self._values):
            for number, states in enumerate(cache):  # layer by layer, so that the cache is never in memory twice
                cache[number] = states.index_select(0, index)

    @torch.no_grad()
    def reserve(self, rows: int, capacity: int) -> None:
        """Reserve ``rows`` rows of ``capacity`` tokens, whose tensors do not move: `take`, `step_in_place`."""
        device = self._backbone.device
        shapes = [(rows, layer.key_heads, capacity, layer.width) for layer in self._layers]
        self._keys = [torch.zeros(shape, dtype=self._dtype, device=device) for shape in shapes]
        self._values = [torch.zeros(shape, dtype=self._dtype, device=device) for shape in shapes]
        self.hidden = torch.zeros((rows, self._backbone.hidden_size), dtype=self._dtype, device=device)
        # An empty row sees its first position: attention over nothing is NaN.
        self._bias = torch.full((rows, capacity), float("-inf"), dtype=self._dtype, device=device)
        self._bias[:, 0] = 0.0
        self._places = torch.zeros(rows, dtype=torch.long, device=device)
        self._length = capacity

    @property
    def reserved_bytes(self) -> int:
        """Bytes of keys, values and the tensors next to them."""
        return sum(each.nbytes for each in (*self._keys, *self._values, self._bias, self.hidden))

    @torch.no_grad()
    def take(self, rows: Sequence[int], other: "FastDecoder", others: Sequence[int]) -> None:
        """Copy the rows ``others`` of another stepper into the reserved ``rows``."""
        here, there = (index_on(each, self.hidden.device) for each in (rows, others))
        length = min(other._capacity, self._capacity)
        for mine, its in ((self._keys, other._keys), (self._values, other._values)):
            for number, states in enumerate(its):
                mine[number][here, :, :length] = states[there, :, :length]
        self._bias.index_fill_(0, here, float("-inf"))
        self._bias[here, :length] = other._bias[there, :length]
        self._places[here], self.hidden[here] = other._places[there], other.hidden[there]

    @torch.no_grad()
    def pack(self, rows: Sequence[int]) -> None:
        """Move these reserved rows to the front, in this order; the rows after them are free."""
        index = index_on(rows, self.hidden.device)
        for each in (*self._keys, *self._values, self._bias, self._places, self.hidden):
            each[: len(rows)] = each.index_select(0, index)  # by layer, so that the cache is never in memory twice

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the current values of the active adapter into the tensors that steps read."""
        for layer in self._layers:
            layer.refresh()

    def moving(self) -> list[Tensor]:
        """What `step_in_place` overwrites of reserved rows: their positions, attention biases and hidden states.

        The keys and values that it writes come after the existing ones, where nothing reads until they are written
        again.
        """
        return [self._places, self._bias, self.hidden]

    @torch.no_grad()
    def step_in_place(self, tokens: Tensor) -> None:
        """`step` for the first (B,) reserved rows: no shape changes and no tensor moves, so that it can be captured."""
        self._places[: len(tokens)].add_(1).clamp_(max=self._capacity - 1)
        self.hidden[: len(tokens)] = self._read_tokens(tokens)

    @torch.no_grad()
    def step(self, tokens: Tensor) -> None:
        """Process (B,) one more token per row. A row without room overwrites its last one."""
        self._places = (self._places + 1).clamp(max=self._capacity - 1)
        self._length = min(self._length + 1, self._capacity)
        self.hidden = self._read_tokens(tokens)

    @torch.no_grad()
    def step_trunk(self, tokens: Tensor) -> None:
        """`step` for the last token of every row: only ``boundary`` is computed, and nothing can follow."""
        self._places = (self._places + 1).clamp(max=self._capacity - 1)
        self._length = min(self._length + 1, self._capacity)
        self.boundary = self._through(self._backbone.trunk_layers, tokens)

    def _read_tokens(self, tokens: Tensor) -> Tensor:
        """Process a token at each row's position → (B, d) hidden state after it."""
        hidden: Tensor = self._backbone.norm(self._through(len(self._layers), tokens))
        return hidden

    def _through(self, layers: int, tokens: Tensor) -> Tensor:
        """Process a token at each row's position → (B, d) its state after this many layers."""
        backbone, count, length = self._backbone, len(tokens), self._length
        rows, places = torch.arange(count, device=tokens.device), self._places[:count]
        self._bias[:count].scatter_(1, places[:, None], 0.0)
        x = backbone.embed(tokens).to(self._dtype)
        rotation = rotation_of(backbone, x[:, None], places[:, None])
        bias = self._bias[:count, None, None, :length]
        for number, (layer, keys, values) in enumerate(zip(self._layers, self._keys, self._values, strict=True)):
            if number == backbone.trunk_layers and self.keeps_boundary:
                self.boundary = x
            if number == layers:
                break
            query, keys[rows, :, places], values[rows, :, places] = layer.project(x, rotation)
            # Query heads that share a key head are adjacent: they attend as several queries of one head.
            mixed = nn.functional.scaled_dot_product_attention(
                query.reshape(count, layer.key_heads, -1, layer.width),
                keys[:count, :, :length],
                values[:count, :, :length],
                attn_mask=bias,
                scale=layer.scaling,
            )
            x = layer.finish(x, mixed.reshape(count, -1))
        return x

    def _read_rows(self, rows: list[int], prompts: Sequence[tuple[int, ...]], pad_id: int) -> Tensor:
        """Process prompts into the cache's ``rows`` → (B, d) hidden state of each last token."""
        backbone, count = self._backbone, len(prompts)
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[*prompt, *[pad_id] * (longest - len(prompt))] for prompt in prompts])
        device = backbone.device
        places, row_index = torch.arange(longest, device=device), index_on(rows, device)
        last = to_device(torch.arange(count) * longest + lengths - 1, device)
        x = backbone.embed(to_device(ids, device).flatten()).to(self._dtype)
        rotation = rotation_of(backbone, x[:, None], places.repeat(count)[:, None])
        for number, layer in enumerate(self._layers):
            if number == backbone.trunk_layers and self.keeps_boundary:
                self.boundary = x
            flat, key, value = layer.attend(x, rotation, count)
            self._keys[number][row_index, :, :longest] = key
            self._values[number][row_index, :, :longest] = value
            if number == len(self._layers) - 1:  # only the states that predict the next token are still needed
                x, flat = x[last], flat[last]
            x = layer.finish(x, flat)
        hidden: Tensor = backbone.norm(x)
        return hidden


def _padded(x: Tensor, capacity: int) -> Tensor:
    return nn.functional.pad(x, (0, capacity - x.shape[1]), value=float("-inf"))


def _stacked(old: Tensor, new: Tensor, capacity: int) -> Tensor:
    """(A, H, l, W) and (B, H, m, W) → (A + B, H, capacity, W), zeros after l and m."""
    both = new.new_zeros((len(old) + len(new), old.shape[1], capacity, old.shape[3]))
    both[: len(old), :, : old.shape[2]] = old
    both[len(old) :, :, : new.shape[2]] = new
    return both
