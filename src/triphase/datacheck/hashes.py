"""Queries on the hashes of a survey, with little more memory than the hashes take."""

from array import array

import numpy
from numpy.typing import NDArray

_AT_ONCE = 1 << 16
_WORD = (1 << 64) - 1


def hash_of(*parts: str) -> int:
    """A 64-bit hash that is equal for equal texts, within this process and its forks."""
    return hash(parts) & _WORD


def distinct(hashes: "array[int]") -> int:
    """The number of distinct ones."""
    ordered = numpy.sort(numpy.frombuffer(hashes, dtype=numpy.uint64)) if hashes else ()
    return len(ordered) and 1 + int(numpy.count_nonzero(ordered[1:] != ordered[:-1]))


def leaked(trained: "array[int]", shortened: "array[int]", heldout: "array[int]") -> int:
    """The number of training prompts that are held out too.

    ``shortened`` has two for each other training prompt: itself, and what is left of it.
    """
    if not heldout:
        return 0
    held = numpy.sort(numpy.frombuffer(heldout, dtype=numpy.uint64))

    def among(asked: NDArray[numpy.uint64]) -> NDArray[numpy.bool_]:
        found: NDArray[numpy.bool_] = held[numpy.searchsorted(held, asked).clip(max=len(held) - 1)] == asked
        return found

    count = 0
    for start in range(0, len(trained), _AT_ONCE):
        count += int(among(numpy.frombuffer(trained, numpy.uint64)[start : start + _AT_ONCE]).sum())
    if shortened:
        count += int(among(numpy.frombuffer(shortened, numpy.uint64)).reshape(-1, 2).any(axis=1).sum())
    return count


def collides(named: "array[int]") -> bool:
    """Whether an id is used for two prompts; ``named`` contains pairs of both hashes."""
    if not named:
        return False
    pairs = numpy.unique(numpy.frombuffer(named, dtype=numpy.uint64).reshape(-1, 2), axis=0)
    return len(numpy.unique(pairs[:, 0])) < len(pairs)


def contradicted(compared: "array[int]") -> int:
    """The number of comparisons whose opposite is among them; the last bit of a hash is the order."""
    if not compared:
        return 0
    # Sorted, the comparisons of one pair are adjacent, those of one order before those of the other.
    found = numpy.sort(numpy.frombuffer(compared, dtype=numpy.uint64))
    second = found[1:][(found[1:] ^ found[:-1]) == 1]
    ends = numpy.searchsorted(found, second, "right")
    return int((ends - numpy.searchsorted(found, second ^ numpy.uint64(1))).sum())
