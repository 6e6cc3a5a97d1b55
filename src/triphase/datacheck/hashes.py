"""Queries on the hashes of a survey, with little more memory than the hashes take."""

from array import array

import numpy

_AT_ONCE = 1 << 16


def distinct(hashes: "array[int]") -> int:
    """The number of distinct ones."""
    ordered = numpy.sort(numpy.frombuffer(hashes, dtype=numpy.uint64)) if hashes else ()
    return len(ordered) and 1 + int(numpy.count_nonzero(ordered[1:] != ordered[:-1]))


def leaked(trained: "array[int]", heldout: "array[int]") -> int:
    """The number of training prompts that are held out too."""
    if not trained or not heldout:
        return 0
    asked = numpy.frombuffer(trained, dtype=numpy.uint64)
    held = numpy.sort(numpy.frombuffer(heldout, dtype=numpy.uint64))
    count = 0
    for start in range(0, len(asked), _AT_ONCE):
        part = asked[start : start + _AT_ONCE]
        count += int(numpy.count_nonzero(held[numpy.searchsorted(held, part).clip(max=len(held) - 1)] == part))
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
