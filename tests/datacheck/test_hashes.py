"""Queries to hashes agree with counting by sets."""

import random
import tracemalloc
from array import array
from collections import Counter, defaultdict

import pytest

from triphase.datacheck.hashes import collides, contradicted, distinct, leaked

TOP = 1 << 63


@pytest.mark.parametrize("seed", range(20))
def test_they_count_as_sets_do(seed: int) -> None:
    draw = random.Random(seed)
    found = [draw.choice((0, TOP)) + draw.randrange(1 + 4 * seed) for _ in range(draw.randrange(60))]
    held = [draw.choice((0, TOP)) + draw.randrange(1 + 4 * seed) for _ in range(draw.randrange(20))]
    assert distinct(array("Q", found)) == len(set(found))
    assert leaked(array("Q", found), array("Q"), array("Q", held)) == sum(each in set(held) for each in found)
    twos = list(zip(found[::2], found[1::2], strict=False))
    short = array("Q", (each for two in twos for each in two))
    assert leaked(array("Q"), short, array("Q", held)) == sum(bool(set(two) & set(held)) for two in twos)
    orders, pairs = defaultdict(set), Counter(each >> 1 for each in found)
    for each in found:
        orders[each >> 1].add(each & 1)
    assert contradicted(array("Q", found)) == sum(pairs[pair] for pair, kinds in orders.items() if len(kinds) == 2)
    names = [draw.randrange(6) for _ in found]
    asked = defaultdict(set)
    for name, prompt in zip(names, found, strict=True):
        asked[name].add(prompt)
    flat = [value for pair in zip(names, found, strict=True) for value in pair]
    assert collides(array("Q", flat)) == any(len(prompts) > 1 for prompts in asked.values())


def test_they_take_little_more_memory_than_the_hashes() -> None:
    pytest.importorskip("numpy")
    draw = random.Random(0)
    found = array("Q", (draw.getrandbits(64) for _ in range(200_000)))
    held, size = found[:40_000], 8 * len(found)
    distinct(found[:10])  # the import
    for ask, most in (
        (lambda: distinct(found), 1.5),
        (lambda: leaked(found, array("Q"), held), 1.5),
        (lambda: contradicted(found), 2.5),
    ):
        tracemalloc.start()
        ask()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < most * size, (peak, size)
