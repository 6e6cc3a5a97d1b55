"""`CudaGraphs` against the rules of torch's CUDA graphs, which stand-ins of its classes keep."""

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from triphase.rollouts import graphs
from triphase.rollouts.graphs import CudaGraphs, NotRecordedError, Step


class Stream:
    def __init__(self, card: "Card") -> None:
        self.waited_for: list[Stream] = []
        card.streams.append(self)

    def wait_stream(self, other: "Stream") -> None:
        self.waited_for.append(other)


class Graph:
    """A graph's pool is opened with its first graph and has ended with its last."""

    def __init__(self) -> None:
        self._pool: Any = None

    def pool(self) -> Any:
        return self._pool

    def replay(self) -> None: ...


class Card:
    """What a step does to the card, and what torch makes of it."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.main = self.current = Stream(self)
        self.mode, self.captures, self.steps = 0, 0, 0
        self.pools: Counter[int] = Counter()
        self.capturing = self.waits = self.breaks = False

    def step(self) -> None:
        self.steps += 1
        assert self.current is not self.main
        if (self.waits and (self.mode == 2 or self.capturing)) or (self.breaks and self.capturing):
            raise RuntimeError("called a synchronizing CUDA operation")

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(self, graph: Graph, *, pool: int | None, stream: Stream) -> Iterator[None]:
        """As torch's: a failed capture leaves its stream current."""
        if pool is not None and not self.pools[pool]:
            raise RuntimeError("use_count > 0 INTERNAL ASSERT FAILED")
        self.captures, self.current, self.capturing = self.captures + 1, stream, True
        before = self.main
        try:
            yield
        finally:
            self.capturing = False
        self.current = before
        graph._pool = self.captures if pool is None else pool
        self.pools[graph._pool] += 1
        weakref.finalize(graph, self.pools.subtract, [graph._pool])

    def set_mode(self, mode: Any) -> None:
        self.mode = {"error": 2}.get(mode, mode)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    made = Card()
    for name, function in (
        ("Stream", lambda: Stream(made)),
        ("CUDAGraph", Graph),
        ("current_stream", lambda: made.current),
        ("stream", made.stream),
        ("graph", made.graph),
        ("get_sync_debug_mode", lambda: made.mode),
        ("set_sync_debug_mode", made.set_mode),
    ):
        monkeypatch.setattr(torch.cuda, name, function)
    graphs._side_stream.cache_clear()
    yield made
    graphs._side_stream.cache_clear()


def pool_of(replay: Step) -> Any:
    return replay.__self__.pool()  # type: ignore[attr-defined]


def test_graphs_share_a_pool_that_ends_with_the_last_of_them(card: Card) -> None:
    """A batch of rows whose graphs are gone is followed by one with a pool of its own."""
    record = CudaGraphs()
    wide, narrow = record(card.step), record(card.step)
    assert pool_of(wide) == pool_of(narrow)
    first = pool_of(wide)
    del wide
    assert pool_of(record(card.step)) == first
    del narrow
    assert pool_of(record(card.step)) != first


def test_all_captures_use_one_stream_and_both_wait_for_each_other(card: Card) -> None:
    for _ in range(3):
        CudaGraphs()(card.step)
    (main, side) = card.streams
    assert card.current is main and main.waited_for == [side] * 3 and side.waited_for == [main] * 3


@pytest.mark.parametrize("fault", ["waits", "breaks"])
def test_a_step_that_cannot_be_captured_leaves_the_card_as_it_was(fault: str, card: Card) -> None:
    """One that synchronizes is found before a capture begins."""
    setattr(card, fault, True)
    with pytest.raises(NotRecordedError, match="synchronizing"):
        CudaGraphs()(card.step)
    assert card.captures == (fault == "breaks")
    assert card.current is card.main and card.mode == 0 and card.main.waited_for
