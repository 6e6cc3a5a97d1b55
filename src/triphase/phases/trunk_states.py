"""The trunk states of a rollout that one rank needs: of several ranks none has memory for those of all rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from triphase.batches.transfers import index_on
from triphase.models.roles import SharedModel
from triphase.tokens.encoding import Encoded


@dataclass(frozen=True, slots=True)
class TrunkStates:
    """The boundary of some rows of a rollout.

    Attributes:
        values: (n, L, d) states, 0 where they are not computed yet.
        places: the index of each row in ``values``.
    """

    values: Tensor
    places: Mapping[int, int]

    @classmethod
    def for_rows(cls, shared: SharedModel, rows: Sequence[int], length: int) -> Self:
        """Room for rows of at most ``length`` tokens."""
        shape = (len(rows), length, shared.backbone.hidden_size)
        values = torch.zeros(shape, dtype=shared.backbone.dtype, device=shared.device)
        return cls(values, {row: place for place, row in enumerate(rows)})

    @classmethod
    def sampled(cls, states: Tensor, samples: Sequence[Encoded], share: int, length: int) -> Self:
        """The states that sampling computed, as rows of ``share`` consecutive samples that have the same prompt.

        Args:
            states: (B, l, d) of the tokens of each sample's prompt and response.
            length: L, of the longest row.
        """
        rows = range(len(samples) // share)
        if share == 1:
            return cls(states[:, :length], {row: row for row in rows})
        values = states.new_zeros((len(rows), length, states.shape[2]))
        for row in rows:
            place = len(samples[row * share].prompt)
            values[row, :place] = states[row * share, :place]
            for number in range(row * share, (row + 1) * share):
                prompt, response = (len(part) for part in (samples[number].prompt, samples[number].response))
                values[row, place : place + response] = states[number, prompt : prompt + response]
                place += response
        return cls(values, {row: row for row in rows})

    def put(self, rows: Sequence[int], states: Tensor) -> None:
        """Keep the (rows, l, d) states of these rows."""
        self.values[self._at(rows), : states.shape[1]] = states

    def of(self, rows: Sequence[int], length: int) -> Tensor:
        """(rows, length, d) states of these rows."""
        return self.values[self._at(rows), :length]

    def _at(self, rows: Sequence[int]) -> Tensor:
        return index_on([self.places[row] for row in rows], self.values.device)
