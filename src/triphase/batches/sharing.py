"""Batches of ranked groups in which the prompt stands once: prompt, response 1, response 2, … in one row.

Each response sees the prompt and itself, and its positions go on from the prompt's, so it gets the hidden states that
it would have in a row of its own. With K responses the prompt is computed once instead of K times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from triphase.batches.padding import Layout
from triphase.tokens.encoding import EncodedGroup


@dataclass(frozen=True, slots=True)
class GroupBatch:
    """G groups, their N responses in all.

    Attributes:
        input_ids: (G, L) prompt, responses, padding.
        layout: positions and who sees whom.
        rows, last_positions: (N,) the row of each response and the place of its last real token there.
    """

    input_ids: Tensor
    layout: Layout
    rows: Tensor
    last_positions: Tensor

    @property
    def last_tokens(self) -> tuple[Tensor, Tensor]:
        """(N,) row and (N,) position of each response's last real token."""
        return self.rows, self.last_positions


def packed_length(group: EncodedGroup) -> int:
    """Tokens of a group whose prompt stands once."""
    return len(group.prompt) + sum(len(response) for response in group.responses)


def pad_groups(groups: Sequence[EncodedGroup], *, pad_id: int, device: torch.device | str = "cpu") -> GroupBatch:
    """Stack groups, padding on the right."""
    longest = max(packed_length(group) for group in groups)
    input_ids = torch.full((len(groups), longest), pad_id, dtype=torch.long)
    positions = torch.zeros((len(groups), longest), dtype=torch.long)
    # Which response a token belongs to: 0 the prompt, 1 … K, and -1 for padding, which sees itself alone.
    owner = torch.full((len(groups), longest), -1, dtype=torch.long)
    rows, last_positions = [], []
    for row, group in enumerate(groups):
        size, place = len(group.prompt), len(group.prompt)
        input_ids[row, :size] = torch.tensor(group.prompt)
        positions[row, :size] = torch.arange(size)
        owner[row, :size] = 0
        for number, response in enumerate(group.responses, start=1):
            end = place + len(response)
            input_ids[row, place:end] = torch.tensor(response)
            positions[row, place:end] = torch.arange(size, size + len(response))
            owner[row, place:end] = number
            rows.append(row)
            last_positions.append(end - 1)
            place = end
    same = owner[:, :, None] == owner[:, None, :]
    to_prompt = (owner[:, :, None] > 0) & (owner[:, None, :] == 0)
    causal = torch.ones((longest, longest), dtype=torch.bool).tril()
    mask = ((same | to_prompt) & causal)[:, None]
    return GroupBatch(
        input_ids.to(device),
        Layout(positions.to(device), mask.to(device)),
        torch.tensor(rows, device=device),
        torch.tensor(last_positions, device=device),
    )
