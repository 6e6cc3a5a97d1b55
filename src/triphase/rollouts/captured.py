"""Sampling on a CUDA device: the whole step of all rows is captured once, and replayed for each token.

Choosing a token, reading it through every layer and noting what has ended are dozens of small kernels in each layer:
from Python each waits for the next to be asked for. Captured as one CUDA graph the card runs them back to back, and the
processor looks only every few tokens at which rows have ended. Rows keep their places; where one has ended, the next
prompt takes its place. Once few are left they move to a smaller batch, which is captured anew.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from triphase.models.direct import DirectStepper
from triphase.models.products import multiply
from triphase.models.roles import SharedModel
from triphase.rollouts.types import Request

Choose = Callable[[Tensor, float, Tensor], Tensor]

_LOOK_EVERY = 8
"""Tokens between two looks at which rows have ended."""
_CAPACITY_STEP = 64  # kernels of masked attention want rows of whole blocks
_WARM_UPS = 2
_SMALL_SHARE = 0.5  # of the places that still have a row, where no prompt waits: they move to a batch of that size
_READ_SHARE = 0.25  # of the places that are free before prompts are read into them
_log = logging.getLogger(__name__)


class CapturedRows:
    """A batch of rows in places of their own, and the step that writes one token into each.

    The adapter that is at work when this is made is the one that is used.

    Attributes:
        written: (B, limit) tokens of each row's response.
        counts: (B,) how many there are.
        ended: (B,) True where the row is finished or free.
    """

    @torch.no_grad()
    def __init__(
        self,
        shared: SharedModel,
        stepper: DirectStepper,
        places: int,
        *,
        capacity: int,
        limit: int,
        temperature: float,
        choose: Choose,
    ) -> None:
        self._shared, self._temperature, self._choose = shared, temperature, choose
        self._stepper = stepper
        device, self._limit = shared.device, limit
        stepper.reserve(places, -(-capacity // _CAPACITY_STEP) * _CAPACITY_STEP)
        self.written = torch.zeros((places, limit), dtype=torch.long, device=device)
        self.counts = torch.zeros(places, dtype=torch.long, device=device)
        self.ended = torch.ones(places, dtype=torch.bool, device=device)
        self._uniforms = torch.zeros((places, limit), dtype=torch.float64, device=device)
        self._ends = torch.tensor(shared.template.ends, device=device)
        self._graph: Any = None
        self._failed = False

    @property
    def places(self) -> int:
        """How many rows there are room for."""
        return len(self.counts)

    @torch.no_grad()
    def put(self, places: Sequence[int], other: DirectStepper, uniforms: Tensor) -> None:
        """Begin a response in each of ``places``: the prompts are the rows of ``other``, (N, limit) their draws."""
        self._stepper.take(places, other, range(len(places)))
        index = torch.tensor(places, device=self.counts.device)
        self._uniforms[index] = uniforms.to(self.counts.device)
        self.counts[index] = 0
        self.ended[index] = False

    @torch.no_grad()
    def move_to(self, other: "CapturedRows", places: Sequence[int]) -> None:
        """Let the responses in ``places`` go on in the first places of another batch."""
        here = torch.tensor(places, device=self.counts.device)
        other._stepper.take(range(len(places)), self._stepper, places)
        for name in ("written", "counts", "ended", "_uniforms"):
            getattr(other, name)[: len(places)] = getattr(self, name)[here]

    @torch.no_grad()
    def advance(self, tokens: int) -> None:
        """Write so many tokens into each row that goes on; rows that end on the way stay as they are."""
        if self._graph is None and self.counts.device.type == "cuda" and not self._failed:
            self._graph = self._captured()
        for _ in range(tokens):
            if self._graph is None:
                self._tick()
            else:
                self._graph.replay()

    def _tick(self) -> None:
        shared = self._shared
        backbone = shared.backbone
        logits = backbone.logits(multiply(backbone.head_weight, self._stepper.hidden.t()).t())
        if shared.absent is not None:
            logits.index_fill_(1, shared.absent, -math.inf)
        place = self.counts.clamp(max=self._limit - 1)[:, None]
        tokens = self._choose(logits, self._temperature, self._uniforms.gather(1, place)[:, 0])
        kept = torch.where(self.ended, self.written.gather(1, place)[:, 0], tokens)
        self.written.scatter_(1, place, kept[:, None])
        self.counts.add_(~self.ended)
        self.ended.logical_or_((tokens[:, None] == self._ends).any(1) | (self.counts >= self._limit))
        self._stepper.step_in_place(tokens)

    def _captured(self) -> Any:
        """The step as a CUDA graph. What is tried out before it is captured changes free rows alone."""
        ended = self.ended.clone()
        saved = [each.clone() for each in self._stepper.moving()]
        self.ended.fill_(True)
        side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                self._tick()
        torch.cuda.current_stream().wait_stream(side)
        graph: Any = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._tick()
        except RuntimeError as error:  # a layer asks for something that only the processor can answer
            _log.warning(
                "tokens are written one kernel at a time: the step cannot be captured (%s)", _first_line(error)
            )
            self._failed, graph = True, None
        for each, before in zip(self._stepper.moving(), saved, strict=True):
            each.copy_(before)
        self.ended.copy_(ended)
        return graph


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:160]


@torch.no_grad()
def write_captured(
    shared: SharedModel,
    requests: Sequence[Request],
    uniforms: Callable[[int, int], Tensor],
    *,
    batch_size: int,
    temperature: float,
    limit: int,
    choose: Choose,
    on_finished: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """The ids of a response to each request, by the adapter that is at work.

    ``uniforms`` gives the (limit,) draws of a seed, ``choose`` a token of logits, temperature and draws.
    """
    waiting = deque(sorted(range(len(requests)), key=lambda index: (len(requests[index].prompt), index)))
    responses: list[list[int]] = [[] for _ in requests]
    capacity = max(len(request.prompt) for request in requests) + limit
    pad_id = shared.template.pad_id

    def batch(places: int) -> CapturedRows:
        stepper = DirectStepper(shared.backbone)
        return CapturedRows(
            shared, stepper, places, capacity=capacity, limit=limit, temperature=temperature, choose=choose
        )

    rows = batch(min(batch_size, len(requests)))
    holders: list[int | None] = [None] * rows.places  # the request that each place answers
    while True:
        free = [place for place, holder in enumerate(holders) if holder is None]
        if waiting and len(free) >= _READ_SHARE * rows.places:
            new = [waiting.popleft() for _ in range(min(len(waiting), len(free)))]
            reader = DirectStepper(shared.backbone)
            reader.read([requests[index].prompt for index in new], pad_id=pad_id, room=0)
            rows.put(free[: len(new)], reader, torch.stack([uniforms(requests[index].seed, limit) for index in new]))
            del reader
            for place, index in zip(free, new, strict=False):
                holders[place] = index
        held = [place for place, holder in enumerate(holders) if holder is not None]
        if not held:
            return responses
        if not waiting and len(held) <= _SMALL_SHARE * rows.places:
            smaller = batch(len(held))
            rows.move_to(smaller, held)
            rows, holders = smaller, [holders[place] for place in held]
        rows.advance(_LOOK_EVERY)
        finished = 0
        counts, ended = torch.stack([rows.counts, rows.ended.long()]).tolist()
        done = [place for place, holder in enumerate(holders) if holder is not None and ended[place]]
        if done:
            written = rows.written[torch.tensor(done, device=rows.written.device)].tolist()
            for place, ids in zip(done, written, strict=True):
                holder = holders[place]
                assert holder is not None  # noqa: S101 - chosen above
                responses[holder] = ids[: counts[place]]
                holders[place] = None
                finished += 1
        if finished and on_finished is not None:
            on_finished(finished)
