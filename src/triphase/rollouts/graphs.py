"""A step as a CUDA graph: what it asks of the card is recorded once, and asked again in one call for each token."""

from collections.abc import Callable
from typing import Any

import torch

Step = Callable[[], None]
Record = Callable[[Step], Step]
"""Makes of a step one that does the same to the same tensors. On the way it runs the step a few times."""
_WARM_UPS = 2


class NotRecordedError(Exception):
    """A step asks for something that only the processor can answer."""


class CudaGraphs:
    """Records steps of which no two run at once: what they have in between stands in one pool of memory."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, step: Step) -> Step:
        """The step as a graph.

        Raises:
            NotRecordedError: it cannot be recorded; it can still be run.
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
            raise NotRecordedError((str(error).splitlines() or [type(error).__name__])[0][:160]) from error
        replay: Step = graph.replay
        return replay
