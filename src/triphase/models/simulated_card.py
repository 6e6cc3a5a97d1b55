"""Computations of a GPU on tensors of the CPU: for a plan, whose tensors have no data."""

from collections.abc import Iterator
from contextlib import contextmanager

_is_on = False


@contextmanager
def as_on_a_card() -> Iterator[None]:
    """Compute on tensors of the CPU as on those of a GPU."""
    global _is_on
    before, _is_on = _is_on, True
    try:
        yield
    finally:
        _is_on = before


def is_simulated() -> bool:
    """Whether tensors of the CPU stand for those of a GPU."""
    return _is_on
