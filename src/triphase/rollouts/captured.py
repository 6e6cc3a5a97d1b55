"""Sampling on a CUDA device: a step of all rows is captured once for each width and replayed for each token.

Sampling a token, processing it through every layer and recording which rows have ended are dozens of small kernels in
each layer: from Python each waits for the next launch. Captured as one CUDA graph the GPU runs them back to back, and
the CPU checks only every few tokens which rows have ended. Rows keep their slots; when one has ended, the next prompt
takes its slot. When few are left they move to the front, where a narrower step is enough.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from triphase.batches.transfers import index_on, to_device
from triphase.models.direct import FastDecoder
from triphase.models.products import multiply
from triphase.models.roles import SharedModel
from triphase.rollouts.graphs import NotRecordedError, Record, Step

Choose = Callable[[Tensor, float, Tensor], Tensor]

LOOK_EVERY = 8
"""Tokens between two checks of which rows have ended."""
_CAPACITY_STEP = 64  # kernels of masked attention need rows of whole blocks
_LEAST_WIDTH = 8  # fewer rows are not faster
_MOST_LONGER = 2  # times the capacity that the rows need: all of it is read for each token


class CapturedRows:
    """A batch of rows in fixed slots, and the step that writes one token into each of the first ``width``.

    The adapter that is active on construction is the one that is used.

    Attributes:
        width: how many slots a step computes.
        written: (B, limit) tokens of each row's response.
        counts: (B,) their number.
        ended: (B,) True where the row is finished or free.
        failure: why the step is not captured, if it cannot be.
    """

    @torch.no_grad()
    def __init__(
        self,
        shared: SharedModel,
        stepper: FastDecoder,
        places: int,
        *,
        capacity: int,
        limit: int,
        temperature: float,
        choose: Choose,
        record: Record | None = None,
    ) -> None:
        """``record`` captures the step; None runs it uncaptured."""
        self._shared, self.temperature, self._choose = shared, temperature, choose
        self._stepper, self._record = stepper, record
        self.failure: str | None = None
        self._steps: dict[int, Step] = {}
        device, self.limit, self.width = shared.device, limit, places
        self.capacity = whole_blocks(capacity)
        stepper.reserve(places, self.capacity)
        self.written = torch.zeros((places, limit), dtype=torch.long, device=device)
        self.counts = torch.zeros(places, dtype=torch.long, device=device)
        self.ended = torch.ones(places, dtype=torch.bool, device=device)
        self._uniforms = torch.zeros((places, limit), dtype=torch.float64, device=device)
        self._ends = to_device(torch.tensor(list(shared.template.ends)), device)
        self._recent = torch.arange(-LOOK_EVERY, 0, device=device)

    @property
    def places(self) -> int:
        """The maximum number of rows."""
        return len(self.counts)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows' tensors, without the temporary tensors of a step."""
        return self._stepper.reserved_bytes + self.written.nbytes + self._uniforms.nbytes

    def fits(self, count: int, length: int) -> bool:
        """Whether ``count`` rows of ``length`` tokens fit, without reading far more than theirs."""
        return self.places >= count and length <= self.capacity <= _MOST_LONGER * whole_blocks(length)

    @torch.no_grad()
    def begin(self, count: int) -> None:
        """Free all slots, and use the first ``count`` from now on, with the adapter's current values."""
        self._stepper.refresh()
        self.ended.fill_(True)
        self.width = self.width_for(count)

    def width_for(self, count: int) -> int:
        """The narrowest step for this many rows: the widths are 8, 16, 32 … and all slots."""
        width = _LEAST_WIDTH
        while width < count:
            width *= 2
        return min(width, self.places)

    @torch.no_grad()
    def put(self, places: Sequence[int], other: FastDecoder, uniforms: Tensor) -> None:
        """Start a response in each of ``places``: the prompts are the rows of ``other``, (N, limit) their draws."""
        self._stepper.take(places, other, range(len(places)))
        index = index_on(places, self.counts.device)
        self._uniforms[index] = to_device(uniforms, self.counts.device)
        self.counts.index_fill_(0, index, 0)
        self.ended.index_fill_(0, index, False)

    @torch.no_grad()
    def pack(self, places: Sequence[int]) -> None:
        """Move the responses in ``places`` to the first slots, for a step that is as narrow as they allow."""
        index = index_on(places, self.counts.device)
        self._stepper.pack(places)
        for each in (self.written, self.counts, self.ended, self._uniforms):
            each[: len(places)] = each.index_select(0, index)
        self.ended[len(places) :] = True
        self.width = self.width_for(len(places))

    @torch.no_grad()
    def advance(self, tokens: int) -> None:
        """Write this many tokens into each unfinished row; rows that end on the way do not change afterwards."""
        step = self._step()
        for _ in range(tokens):
            step()

    @torch.no_grad()
    def look(self) -> list[tuple[int, bool, list[int]]]:
        """(tokens written, whether it has ended, the last `LOOK_EVERY` of them) of each row: the only synchronization.

        What precedes the first token of a short response does not belong to it.
        """
        counts, ended, written = (each[: self.width] for each in (self.counts, self.ended, self.written))
        recent = written.gather(1, (counts[:, None] + self._recent).clamp(min=0))
        found = torch.cat([counts[:, None], ended[:, None].long(), recent], dim=1).tolist()
        return [(row[0], bool(row[1]), row[2:]) for row in found]

    def _step(self) -> Step:
        step = partial(self._tick, self.width)  # kept, it would refer to itself, and live until it is collected
        if self._record is not None and self.width not in self._steps:
            self._capture(self._record, step)
        return self._steps.get(self.width, step)

    def _tick(self, width: int) -> None:
        shared = self._shared
        backbone = shared.backbone
        written, counts, ended, uniforms = (
            each[:width] for each in (self.written, self.counts, self.ended, self._uniforms)
        )
        logits = backbone.logits(multiply(backbone.head_weight, self._stepper.hidden[:width].t()).t())
        if shared.absent is not None:
            logits.index_fill_(1, shared.absent, float("-inf"))
        place = counts.clamp(max=self.limit - 1)[:, None]
        tokens = self._choose(logits, self.temperature, uniforms.gather(1, place)[:, 0])
        kept = torch.where(ended, written.gather(1, place)[:, 0], tokens)
        written.scatter_(1, place, kept[:, None])
        counts.add_(~ended)
        ended.logical_or_((tokens[:, None] == self._ends).any(1) | (counts >= self.limit))
        self._stepper.step_in_place(tokens)

    def _capture(self, record: Record, step: Step) -> None:
        """Capture the step of this width. Its warm-up changes only free rows."""
        ended = self.ended.clone()
        saved = [each.clone() for each in self._stepper.moving()]
        self.ended.fill_(True)
        try:
            self._steps[self.width] = record(step)
        except NotRecordedError as error:  # a layer needs a synchronization with the CPU
            self._record, self.failure = None, str(error)
        finally:
            for each, before in zip(self._stepper.moving(), saved, strict=True):
                each.copy_(before)
            self.ended.copy_(ended)


def whole_blocks(length: int) -> int:
    """The capacity of rows of this many tokens."""
    return -(-length // _CAPACITY_STEP) * _CAPACITY_STEP
