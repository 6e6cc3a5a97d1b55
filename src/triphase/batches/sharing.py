"""Batches of groups in which the prompt stands once: prompt, response 1, response 2, … in one row.

Each response sees the prompt and itself, and its positions go on from the prompt's, so it gets the hidden states that
it would have in a row of its own. With K responses the prompt is computed once instead of K times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from triphase.batches.padding import Layout, TokenBatch, prefix_mask
from triphase.tokens.encoding import EncodedGroup


@dataclass(frozen=True, slots=True)
class GroupBatch:
    """G groups, their N responses in all. R is the length of the longest response.

    Attributes:
        input_ids: (G, L) prompt, responses, padding.
        positions: (G, L) position of each token; those of a response go on from the prompt's.
        owners: (G, L) the response that a token belongs to, from 1 on; 0 for the prompt, -1 for padding.
        prompt_lengths: (G,) real tokens of each prompt.
        row_of, starts, response_lengths: (N,) row of each response, place of its first token there, its real tokens.
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
        return (self.owners >= 0).sum(1)

    @property
    def layout(self) -> Layout:
        """Positions, and who sees whom: made when asked for, since its size is the square of a row's."""
        owners, length = self.owners, self.owners.shape[1]
        same = owners[:, :, None] == owners[:, None, :]
        to_prompt = (owners[:, :, None] > 0) & (owners[:, None, :] == 0)
        causal = torch.ones((length, length), dtype=torch.bool, device=owners.device).tril()
        return Layout(self.positions, ((same | to_prompt) & causal)[:, None])

    @property
    def last_tokens(self) -> tuple[Tensor, Tensor]:
        """(N,) row and (N,) place of each response's last real token."""
        return self.row_of, self.starts + self.response_lengths - 1

    @property
    def predicting_tokens(self) -> tuple[Tensor, Tensor]:
        """Row and place of the token that predicts each real response token, in the order of ``response_mask``.

        The first token of every response is predicted by the prompt's last.
        """
        numbers, offsets = self.response_mask.nonzero(as_tuple=True)
        rows = self.row_of[numbers]
        return rows, torch.where(offsets > 0, self.starts[numbers] + offsets, self.prompt_lengths[rows]) - 1

    @property
    def response_mask(self) -> Tensor:
        """(N, R) True on the real tokens of each response."""
        return prefix_mask(self.response_lengths)

    @property
    def responses(self) -> Tensor:
        """(N, R) response tokens; pads repeat the last real token."""
        offsets = torch.arange(int(self.response_lengths.max()), device=self.starts.device)
        places = torch.minimum(self.starts[:, None] + offsets, self.last_tokens[1][:, None])
        return self.input_ids[self.row_of[:, None], places]

    def rows(self, index: Tensor) -> "GroupBatch":
        """The chosen rows with their responses, cut to their own longest."""
        row_of, numbers = (self.row_of == index[:, None]).nonzero(as_tuple=True)
        length = int(self.lengths[index].max())
        return GroupBatch(
            self.input_ids[index, :length],
            self.positions[index, :length],
            self.owners[index, :length],
            self.prompt_lengths[index],
            row_of,
            self.starts[numbers],
            self.response_lengths[numbers],
        )


Batch = TokenBatch | GroupBatch
"""Responses in rows of their own, or behind one prompt."""


def packed_length(group: EncodedGroup) -> int:
    """Tokens of a group whose prompt stands once."""
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
        input_ids.to(device),
        positions.to(device),
        owners.to(device),
        torch.tensor([len(group.prompt) for group in groups], device=device),
        torch.tensor(row_of, device=device),
        torch.tensor(starts, device=device),
        torch.tensor(lengths, device=device),
    )
