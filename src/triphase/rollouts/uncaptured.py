"""The decode loop with a key-value cache, one token of each row at a time.

Requests are processed in the order of their prompt length, to minimize padding. Finished rows leave the batch, and with
them their cache; if the model allows it, the next prompts take their slots.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from triphase.batches.transfers import index_on, to_device
from triphase.models.products import multiply
from triphase.models.roles import SharedModel
from triphase.models.stepping import Stepper
from triphase.rollouts.drawing import sample, uniforms
from triphase.rollouts.trunk_record import TrunkRecord
from triphase.rollouts.types import Request

# Rows are dropped from the batch once this share of it is finished: dropping copies the cache.
_COMPACT_SHARE = 0.25


class UncapturedWriter:
    """Writes a response to each of some requests.

    Attributes:
        responses: the ids so far, of each request.
    """

    def __init__(
        self,
        shared: SharedModel,
        stepper: Stepper,
        requests: Sequence[Request],
        *,
        batch_size: int,
        temperature: float,
        limit: int,
        record: TrunkRecord | None = None,
    ) -> None:
        """The adapter of ``stepper`` samples; ``record`` gets the trunk states of all tokens."""
        self._shared, self._stepper, self._requests = shared, stepper, requests
        self._batch_size, self._temperature, self._limit, self._record = batch_size, temperature, limit, record
        self._ends = shared.template.ends
        by_length = sorted(range(len(requests)), key=lambda index: (len(requests[index].prompt), index))
        self._waiting = deque(by_length)
        self._uniforms: dict[int, list[float]] = {}
        self._rows: list[int] = []  # rows[i] is the request of row i of the batch
        self.responses: list[list[int]] = [[] for _ in requests]

    @torch.no_grad()
    def write(self, on_finished: Callable[[int], None] | None = None) -> list[list[int]]:
        """The ids of a response to each request; ``on_finished`` gets the number of newly finished ones."""
        while self._rows or self._waiting:
            self._admit()
            going = self._unfinished()
            tokens = self._choose()
            chosen = tokens.tolist()
            for place in going:
                self.responses[self._rows[place]].append(chosen[place])
            alive = self._unfinished()
            if len(alive) < len(going) and on_finished is not None:
                on_finished(len(going) - len(alive))
            self._step(tokens, going, alive)
        return self.responses

    def _is_done(self, row: int) -> bool:
        written = self.responses[row]
        return len(written) == self._limit or (bool(written) and written[-1] in self._ends)

    def _unfinished(self) -> list[int]:
        return [place for place, row in enumerate(self._rows) if not self._is_done(row)]

    def _admit(self) -> None:
        """Prompts take the free slots."""
        rows, waiting, stepper = self._rows, self._waiting, self._stepper
        if not waiting or (rows and not (stepper.joins and _is_small(rows, self._batch_size))):
            return
        new = [waiting.popleft() for _ in range(min(len(waiting), self._batch_size - len(rows)))]
        read = stepper.join if rows else stepper.read
        prompts = [self._requests[row].prompt for row in new]
        read(prompts, pad_id=self._shared.template.pad_id, room=self._limit)
        self._uniforms |= {row: uniforms(self._requests[row].seed, self._limit) for row in new}
        if self._record is not None:
            self._record.add_prompts(new)
        rows += new

    def _choose(self) -> Tensor:
        """(B,) the next token of each row; that of a finished one has no meaning."""
        backbone, absent = self._shared.backbone, self._shared.absent
        logits = backbone.logits(multiply(backbone.head_weight, self._stepper.hidden.t()).t())
        if absent is not None:
            logits.index_fill_(1, absent, -math.inf)
        drawn = [0.0 if self._is_done(row) else self._uniforms[row][len(self.responses[row])] for row in self._rows]
        uniform = to_device(torch.tensor(drawn, dtype=torch.float64), logits.device)
        return sample(logits, self._temperature, uniform)

    def _step(self, tokens: Tensor, going: Sequence[int], alive: Sequence[int]) -> None:
        """Rows process their token, and those that are finished leave: after it, if its trunk state is recorded.

        ``going`` are the rows to which a token was added, ``alive`` those that go on.
        """
        if self._record is not None:
            lengths = {row: len(self._requests[row].prompt) + len(self.responses[row]) for row in self._rows}
            added = {place: (self._rows[place], lengths[self._rows[place]] - 1) for place in going}
            self._record.step(tokens, added, ends=not alive)
        if not alive:
            self._rows = []
            return
        if _is_small(alive, len(self._rows)):
            self._stepper.keep(alive)
            tokens = tokens[index_on(alive, tokens.device)]
            self._rows = [self._rows[place] for place in alive]
        if self._record is None:
            self._stepper.step(tokens)


def _is_small(rows: Sequence[int], places: int) -> bool:
    return len(rows) <= (1 - _COMPACT_SHARE) * places
