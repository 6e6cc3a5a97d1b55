"""A CUDA graph on the processor: the operations of a step are recorded once, and replayed on the same tensors.

As with a real graph, no Python runs at a replay: a tensor that was made anew instead of written into, a number
that was read, or a branch that was taken stays as it was at the capture. What only the processor can answer is refused.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from triphase.rollouts.graphs import NotRecordedError, Step

_aten = torch.ops.aten
_ANSWERS = (_aten._local_scalar_dense.default, _aten.nonzero.default, _aten.masked_select.default, _aten.equal.default)


class _Noting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _ANSWERS:
            raise NotRecordedError(f"operation not permitted when stream is capturing: {func}")
        made = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, made))
        return made


class Recorder:
    """Takes the place of `CudaGraphs`.

    Attributes:
        captures, replays: how many there were.
    """

    def __init__(self) -> None:
        self.captures = self.replays = 0

    def __call__(self, step: Step) -> Step:
        """See Record."""
        step()
        self.captures += 1
        with _Noting() as noting:
            step()
        calls = noting.calls

        def replay() -> None:
            self.replays += 1
            for func, args, kwargs, made in calls:
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)

        return replay
