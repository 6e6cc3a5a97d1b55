"""A step as a CUDA graph: its kernel launches are captured once, and replayed in one call for each token."""

from collections.abc import Callable
from typing import Any

import torch

from triphase.errors import first_line_of

Step = Callable[[], None]
Record = Callable[[Step], Step]
"""Turns a step into one that does the same to the same tensors. The capture runs the step a few times."""
_WARM_UPS = 2


class NotRecordedError(Exception):
    """A step needs a synchronization with the CPU."""


class CudaGraphs:
    """Captures steps, no two of which run at once: their temporary tensors share one memory pool."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, step: Step) -> Step:
        """The step as a graph.

        Raises:
            NotRecordedError: it cannot be captured; it can still be run.
        """
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):  # libraries choose their kernels
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph: Any = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                step()
        except RuntimeError as error:
            self._pool = None
            raise NotRecordedError(first_line_of(error, 160)) from error
        replay: Step = graph.replay
        return replay
