"""Batches of groups that contain the prompt once: prompt, response 1, response 2, … in one row.

Each response attends to the prompt and itself, and its positions continue from the prompt's, so it gets the hidden
states that it would have in a separate row. With K responses the prompt is computed once instead of K times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from triphase.batches.padding import Layout, TokenBatch, mask_of, places_of, prefix_mask, sent
from triphase.batches.transfers import to_device
from triphase.tokens.encoding import EncodedGroup


@dataclass(frozen=True, slots=True)
class GroupBatch:
    """G groups with N responses in total. R is the length of the longest response.

    Attributes:
        input_ids: (G, L) prompt, responses, padding.
        positions: (G, L) position of each token; those of a response continue from the prompt's.
        owners: (G, L) the response that a token belongs to, from 1 on; 0 for the prompt, -1 for padding.
        prompt_lengths: (G,) real tokens of each prompt, on the CPU.
        row_of, starts, response_lengths: (N,) row of each response, index of its first token there, its real tokens; on
            the CPU (see `batches.padding`).
    """

    input_ids: Tensor
    positions: Tensor
    owners: Tensor
    prompt_lengths: Tensor
    row_of: Tensor
    starts: Tensor
    response_lengths: Tensor

    @property
    def lengths(self) -> Tensor:
        """(G,) real tokens of each row."""
        return self.prompt_lengths.scatter_reduce(0, self.row_of, self._ends, "amax")

    @property
    def layout(self) -> Layout:
        """Positions, and the attention mask: built on access, since its size is the square of a row's."""
        owners, length = self.owners, self.owners.shape[1]
        same = owners[:, :, None] == owners[:, None, :]
        to_prompt = (owners[:, :, None] > 0) & (owners[:, None, :] == 0)
        causal = torch.ones((length, length), dtype=torch.bool, device=owners.device).tril()
        return Layout(self.positions, ((same | to_prompt) & causal)[:, None])

    @property
    def last_tokens(self) -> tuple[Tensor, Tensor]:
        """(N,) row and (N,) index of each response's last real token."""
        return sent(self.input_ids.device, self.row_of, self._ends - 1)

    @property
    def _ends(self) -> Tensor:
        return self.starts + self.response_lengths

    @property
    def predicting_tokens(self) -> tuple[Tensor, Tensor]:
        """Row and index of the token that predicts each real response token, in the order of ``response_mask``.

        The first token of every response is predicted by the prompt's last.
        """
        numbers, offsets = prefix_mask(self.response_lengths).nonzero(as_tuple=True)
        rows = self.row_of[numbers]
        places = torch.where(offsets > 0, self.starts[numbers] + offsets, self.prompt_lengths[rows]) - 1
        return sent(self.input_ids.device, rows, places)

    @property
    def targets(self) -> Tensor:
        """(N,) the real response tokens, in the order of ``response_mask``."""
        numbers, offsets = prefix_mask(self.response_lengths).nonzero(as_tuple=True)
        places = sent(self.input_ids.device, self.row_of[numbers], self.starts[numbers] + offsets)
        return self.input_ids[places]

    @property
    def response_mask(self) -> Tensor:
        """(N, R) True on the real tokens of each response."""
        return mask_of(self.response_lengths, self.input_ids.device)

    @property
    def response_places(self) -> Tensor:
        """(N,) index of each real response token in a flattened `response_mask`."""
        return places_of(self.response_lengths, self.input_ids.device)

    @property
    def responses(self) -> Tensor:
        """(N, R) response tokens; pads repeat the last real token."""
        offsets = torch.arange(int(self.response_lengths.max()))
        places = torch.minimum(self.starts[:, None] + offsets, self._ends[:, None] - 1)
        return self.input_ids[sent(self.input_ids.device, self.row_of[:, None], places)]

    def rows(self, index: Tensor) -> "GroupBatch":
        """The rows at ``index``, which is on the CPU, with their responses, trimmed to the longest of them."""
        row_of, numbers = (self.row_of == index[:, None]).nonzero(as_tuple=True)
        length = int(self.lengths[index].max())
        there = to_device(index, self.input_ids.device)
        return GroupBatch(
            self.input_ids[there, :length],
            self.positions[there, :length],
            self.owners[there, :length],
            self.prompt_lengths[index],
            row_of,
            self.starts[numbers],
            self.response_lengths[numbers],
        )


Batch = TokenBatch | GroupBatch
"""Responses in separate rows, or after one prompt."""


def packed_length(group: EncodedGroup) -> int:
    """Tokens of a group that contains its prompt once."""
    return len(group.prompt) + sum(len(response) for response in group.responses)


def pad_groups(groups: Sequence[EncodedGroup], *, pad_id: int, device: torch.device | str = "cpu") -> GroupBatch:
    """Stack groups, padding on the right."""
    longest = max(packed_length(group) for group in groups)
    input_ids = torch.full((len(groups), longest), pad_id, dtype=torch.long)
    positions = torch.zeros((len(groups), longest), dtype=torch.long)
    owners = torch.full((len(groups), longest), -1, dtype=torch.long)
    row_of, starts, lengths = [], [], []
    for row, group in enumerate(groups):
        size, place = len(group.prompt), len(group.prompt)
        input_ids[row, :size] = torch.tensor(group.prompt)
        positions[row, :size] = torch.arange(size)
        owners[row, :size] = 0
        for number, response in enumerate(group.responses, start=1):
            end = place + len(response)
            input_ids[row, place:end] = torch.tensor(response)
            positions[row, place:end] = torch.arange(size, size + len(response))
            owners[row, place:end] = number
            row_of.append(row)
            starts.append(place)
            lengths.append(len(response))
            place = end
    return GroupBatch(
        to_device(input_ids, device),
        to_device(positions, device),
        to_device(owners, device),
        torch.tensor([len(group.prompt) for group in groups]),
        torch.tensor(row_of),
        torch.tensor(starts),
        torch.tensor(lengths),
    )
