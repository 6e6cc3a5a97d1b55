"""A step as a CUDA graph: its kernel launches are captured once, and replayed in one call for each token."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from weakref import WeakSet

import torch

from triphase.errors import first_line_of

Step = Callable[[], None]
Record = Callable[[Step], Step]
"""Turns a step into one that does the same to the same tensors. The capture runs the step a few times."""


class NotRecordedError(Exception):
    """A step needs a synchronization with the CPU."""


class CudaGraphs:
    """Captures steps, no two of which run at once: their temporary tensors share one memory pool.

    It is the pool of the graphs that still exist: torch captures nothing into a pool whose last graph is gone.
    """

    def __init__(self) -> None:
        self._graphs: WeakSet[Any] = WeakSet()

    def __call__(self, step: Step) -> Step:
        """The step as a graph.

        Raises:
            NotRecordedError: it cannot be captured; it can still be run.
        """
        graph: Any = torch.cuda.CUDAGraph()
        outer, side = torch.cuda.current_stream(), _side_stream()
        side.wait_stream(outer)
        try:
            with torch.cuda.stream(side):  # restores the stream, which a failed capture does not
                step()  # libraries choose their kernels
                self._capture(graph, step, side)
        finally:
            outer.wait_stream(side)
        self._graphs.add(graph)
        replay: Step = graph.replay
        return replay

    def _capture(self, graph: Any, step: Step, stream: Any) -> None:
        pool = next((each.pool() for each in self._graphs), None)
        try:
            # Before the capture: after one that fails, the allocator of torch up to 2.12 frees no cached memory.
            with _synchronization_refused():
                step()
            with torch.cuda.graph(graph, pool=pool, stream=stream):
                step()
        except RuntimeError as error:
            raise NotRecordedError(first_line_of(error, 160)) from error


@cache
def _side_stream() -> Any:
    """The stream of all captures: for each stream libraries keep a workspace, tens of megabytes on large GPUs."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


@contextmanager
def _synchronization_refused() -> Iterator[None]:
    """Let what waits for the GPU raise a `RuntimeError`."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: the mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
