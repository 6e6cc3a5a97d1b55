"""Responses by a captured step: prompts are processed into free slots, rows that have ended leave them.

Between two calls the batch and its graphs stay allocated if they take little of the GPU's memory, so that an iteration
of PPO does not repeat the captures of the previous one. The adapter has changed by then, and the batch copies its new
values.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from triphase.models.direct import FastDecoder
from triphase.models.roles import SharedModel
from triphase.rollouts.captured import LOOK_EVERY, CapturedRows, Choose
from triphase.rollouts.graphs import Record
from triphase.rollouts.types import Request

_SMALL_SHARE = 0.5  # of the width that still has a row, if no prompt waits: they move to a narrower step
_READ_SHARE = 0.25  # of the slots that are free before prompts are processed into them
KEPT_SHARE = 0.04
"""Of the GPU's memory: what may stay allocated between two calls."""


@dataclass(frozen=True, slots=True)
class _Baked:
    """What a captured step depends on: numbers, and the addresses of the weights."""

    adapter: str | None
    temperature: float
    limit: int
    weights: tuple[int, ...]


class CapturedWriter:
    """Writes responses with the active adapter."""

    def __init__(
        self,
        shared: SharedModel,
        *,
        choose: Choose,
        draws: Callable[[int, int], Tensor],
        record: Record | None,
        on_failure: Callable[[str], None] = lambda reason: None,
        room: float | None = None,
    ) -> None:
        """``draws`` returns the (limit,) uniform numbers of a seed, ``choose`` a token of logits, temperature and
        draws. ``on_failure`` gets the reason if the step cannot be captured.

        ``room`` is how many bytes may be kept between two calls; by default a small share of the GPU's memory.
        """
        self._shared, self._choose, self._draws = shared, choose, draws
        self._record, self._tell = record, on_failure
        self._room = room
        self._kept: tuple[_Baked, CapturedRows] | None = None

    def release(self) -> None:
        """Release what is kept between two calls."""
        self._kept = None

    @torch.no_grad()
    def write(
        self,
        requests: Sequence[Request],
        *,
        batch_size: int,
        temperature: float,
        limit: int,
        on_finished: Callable[[int], None] | None = None,
    ) -> list[list[int]]:
        """The ids of a response to each request; ``on_finished`` gets the number of newly finished ones."""
        count = min(batch_size, len(requests))
        baked = self._baked(temperature, limit)
        rows = self._rows(baked, count, max(len(request.prompt) for request in requests) + limit)
        waiting = deque(sorted(range(len(requests)), key=lambda index: (len(requests[index].prompt), index)))
        responses: list[list[int]] = [[] for _ in requests]
        holders: list[int | None] = [None] * count  # the request of each slot
        while True:
            free = [place for place, holder in enumerate(holders) if holder is None]
            if waiting and len(free) >= _READ_SHARE * count:
                new = [waiting.popleft() for _ in range(min(len(waiting), len(free)))]
                self._read(rows, free[: len(new)], [requests[index] for index in new])
                for place, index in zip(free, new, strict=False):
                    holders[place] = index
            held = [place for place, holder in enumerate(holders) if holder is not None]
            if not held:
                break
            if not waiting and rows.width_for(len(held)) <= _SMALL_SHARE * rows.width:
                rows.pack(held)
                holders = [holders[place] for place in held]
            finished = self._advance(rows, holders, responses)
            if finished and on_finished is not None:
                on_finished(finished)
        if self._record is not None and rows.nbytes <= self._allowed():
            self._kept = (baked, rows)
        return responses

    def _advance(self, rows: CapturedRows, holders: list[int | None], responses: list[list[int]]) -> int:
        """Some tokens for each row; the rows that ended leave their slots → how many they are."""
        longest = max(rows.limit - len(responses[index]) for index in holders if index is not None)
        rows.advance(min(LOOK_EVERY, longest))
        if rows.failure is not None and self._record is not None:
            self._record = None
            self._tell(rows.failure)
        finished = 0
        for place, (count, ended, recent) in enumerate(rows.look()[: len(holders)]):
            index = holders[place]
            if index is None:
                continue
            responses[index] += recent[len(recent) - (count - len(responses[index])) :]
            if ended:
                holders[place] = None
                finished += 1
        return finished

    def _read(self, rows: CapturedRows, places: Sequence[int], requests: Sequence[Request]) -> None:
        reader = FastDecoder(self._shared.backbone)
        reader.read([request.prompt for request in requests], pad_id=self._shared.template.pad_id, room=0)
        rows.put(places, reader, torch.stack([self._draws(request.seed, rows.limit) for request in requests]))

    def _baked(self, temperature: float, limit: int) -> _Baked:
        model = self._shared.backbone.model
        weights = () if self._record is None else (*model.parameters(), *model.buffers())
        return _Baked(self._shared.adapters.active, temperature, limit, tuple(each.data_ptr() for each in weights))

    def _rows(self, baked: _Baked, count: int, length: int) -> CapturedRows:
        """A batch for ``count`` rows of ``length`` tokens: the cached one if it fits, or a new one."""
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] == baked and kept[1].fits(count, length):
            kept[1].begin(count)
            return kept[1]
        del kept  # its memory is needed
        return CapturedRows(
            self._shared,
            FastDecoder(self._shared.backbone),
            count,
            capacity=length,
            limit=baked.limit,
            temperature=baked.temperature,
            choose=self._choose,
            record=self._record,
        )

    def _allowed(self) -> float:
        if self._room is not None:
            return self._room
        return KEPT_SHARE * _card_bytes()


def _card_bytes() -> float:
    return float(torch.cuda.mem_get_info()[1])
