"""Right-padded batches of prompts with responses.

Padding is on the right only, so under a causal mask no real token attends to it: no attention mask is needed, the
fastest attention kernel applies, and the values at padding change nothing.

Ids are on the model's device, lengths on the CPU: what follows from lengths (shapes, positions, masks) is computed
there and sent to the device, without any synchronization.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from triphase.batches.transfers import to_device
from triphase.objectives.shapes import with_count
from triphase.tokens.encoding import Encoded


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions and attention masks of tokens, if they are not plain left to right.

    Attributes:
        positions: (B, L) position of each token.
        attention: (B, 1, L, L) bool, True where the row's token attends to the column's.
    """

    positions: Tensor
    attention: Tensor


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Prompts with their responses, right-padded.

    Attributes:
        input_ids: (B, L) token ids, prompt then response then padding.
        prompt_lengths: (B,) real tokens of each prompt, on the CPU.
        response_lengths: (B,) real tokens of each response, the end token included; on the CPU.
    """

    input_ids: Tensor
    prompt_lengths: Tensor
    response_lengths: Tensor

    @property
    def lengths(self) -> Tensor:
        """(B,) real tokens of prompt and response."""
        return self.prompt_lengths + self.response_lengths

    @property
    def layout(self) -> Layout | None:
        """None: each token attends to all previous ones."""
        return None

    @property
    def last_tokens(self) -> tuple[Tensor, Tensor]:
        """(B,) row and (B,) position of each response's last real token."""
        return sent(self.input_ids.device, torch.arange(len(self.input_ids)), self.lengths - 1)

    @property
    def predicting_tokens(self) -> tuple[Tensor, Tensor]:
        """(N,) row and (N,) position that predicts each real response token, in the order of `response_mask`."""
        rows, steps = prefix_mask(self.response_lengths).nonzero(as_tuple=True)
        return sent(self.input_ids.device, rows, self.prompt_lengths[rows] + steps - 1)

    @property
    def targets(self) -> Tensor:
        """(N,) the real response tokens, in the order of `response_mask`."""
        rows, steps = prefix_mask(self.response_lengths).nonzero(as_tuple=True)
        return self.input_ids[sent(self.input_ids.device, rows, self.prompt_lengths[rows] + steps)]

    @property
    def attention_mask(self) -> Tensor:
        """(B, L) True on real tokens."""
        mask = torch.arange(self.input_ids.shape[1])[None, :] < self.lengths[:, None]
        return to_device(mask, self.input_ids.device)

    @property
    def response_mask(self) -> Tensor:
        """(B, R) True on the real tokens of each response."""
        return mask_of(self.response_lengths, self.input_ids.device)

    @property
    def response_places(self) -> Tensor:
        """(N,) index of each real response token in a flattened `response_mask`."""
        return places_of(self.response_lengths, self.input_ids.device)

    @property
    def response_positions(self) -> Tensor:
        """(B, R) position of each response token in ``input_ids``; pads repeat the last real position."""
        offsets = torch.arange(int(self.response_lengths.max()))[None, :]
        places = torch.minimum(self.prompt_lengths[:, None] + offsets, self.lengths[:, None] - 1)
        return to_device(places, self.input_ids.device)

    @property
    def responses(self) -> Tensor:
        """(B, R) response tokens; pads repeat the last real token."""
        return self.input_ids.gather(1, self.response_positions)

    def rows(self, index: Tensor) -> "TokenBatch":
        """The rows at ``index``, which is on the CPU, trimmed to the longest of them."""
        longest = int(self.lengths[index].max())
        ids = self.input_ids[to_device(index, self.input_ids.device), :longest]
        return TokenBatch(ids, self.prompt_lengths[index], self.response_lengths[index])


def prefix_mask(lengths: Tensor) -> Tensor:
    """(B,) lengths → (B, longest) True on this many first elements of each row."""
    return torch.arange(int(lengths.max()), device=lengths.device)[None, :] < lengths[:, None]


def places_of(lengths: Tensor, device: torch.device) -> Tensor:
    """(N,) index of each True element of the flattened `prefix_mask`, on a device."""
    return to_device(prefix_mask(lengths).flatten().nonzero()[:, 0], device)


def mask_of(lengths: Tensor, device: torch.device) -> Tensor:
    """The `prefix_mask` on a device, with its count of True elements attached."""
    return with_count(to_device(prefix_mask(lengths), device), int(lengths.sum()))


def sent(device: torch.device, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two index tensors on a device; the CPU does not wait for the copy."""
    return to_device(first, device), to_device(second, device)


def pad_batch(samples: Sequence[Encoded], *, pad_id: int, device: torch.device | str = "cpu") -> TokenBatch:
    """Stack encoded samples, padding on the right."""
    longest = max(sample.length for sample in samples)
    input_ids = torch.full((len(samples), longest), pad_id, dtype=torch.long)
    for row, sample in enumerate(samples):
        input_ids[row, : sample.length] = torch.tensor([*sample.prompt, *sample.response], dtype=torch.long)
    prompts = torch.tensor([len(sample.prompt) for sample in samples], dtype=torch.long)
    responses = torch.tensor([len(sample.response) for sample in samples], dtype=torch.long)
    return TokenBatch(to_device(input_ids, device), prompts, responses)
