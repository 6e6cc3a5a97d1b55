"""The mixture: shares are met, nothing comes twice in a pass, and the order follows from the seed alone."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triphase.records.mixture import Mixture
from triphase.records.types import Demonstration, Message, Prompt


def source(name: str, count: int) -> list[Demonstration]:
    return [Demonstration(Prompt(f"{name}{i}", (Message("user", "x"),)), "y", name) for i in range(count)]


def test_one_source_is_seen_once_a_pass_in_another_order_each() -> None:
    mixture = Mixture([source("a", 20)], [1.0], seed=0)
    order = mixture.order(2)
    assert sorted(order[:20]) == sorted(order[20:]) == list(range(20))
    assert order[:20] != order[20:] != list(range(20))


def test_weights_are_shares_whatever_the_sizes() -> None:
    mixture = Mixture([source("a", 90), source("b", 10)], [1.0, 1.0], seed=0)
    order = mixture.order(1)
    report = mixture.report(order)
    assert [(kind.kind, kind.records, kind.visits, kind.share) for kind in report.kinds] == [
        ("a", 90, 50, 0.5),
        ("b", 10, 50, 0.5),
    ]
    assert report.kinds[1].passes == 5
    assert report.visits == 100


def test_the_order_is_known_and_depends_on_the_seed() -> None:
    mixture = Mixture([source("a", 4), source("b", 2)], [2.0, 1.0], seed=3)
    assert mixture.order(1) == [2, 5, 3, 1, 4, 0]
    assert Mixture([source("a", 4), source("b", 2)], [2.0, 1.0], seed=4).order(3) != mixture.order(3)


def test_a_longer_order_begins_with_the_shorter() -> None:
    mixture = Mixture([source("a", 7), source("b", 3)], [1.0, 2.0], seed=1)
    assert mixture.order(2.5)[:10] == mixture.order(1)
    assert len(mixture.order(0.5)) == 5


def test_what_is_no_mixture_is_refused() -> None:
    for sources, weights in (([], []), ([[]], [1.0]), ([source("a", 1)], [0.0]), ([source("a", 1)], [1.0, 1.0])):
        with pytest.raises(ValueError, match=r"source|weight"):
            Mixture(sources, weights, seed=0)


@given(st.lists(st.tuples(st.integers(1, 12), st.floats(0.1, 10)), min_size=1, max_size=4), st.integers(0, 5))
def test_every_prefix_is_near_its_shares_and_passes_are_whole(parts: list[tuple[int, float]], seed: int) -> None:
    mixture = Mixture([source(str(i), size) for i, (size, _) in enumerate(parts)], [w for _, w in parts], seed)
    order = mixture.order(2)
    seen: Counter[str] = Counter()
    for visit, index in enumerate(order, start=1):
        seen[mixture.demonstrations[index].kind] += 1
        for i, share in enumerate(mixture.shares):
            assert abs(seen[str(i)] - visit * share) < len(parts)
    visits = Counter(order)
    start = 0
    for size, _ in parts:
        counts = [visits[index] for index in range(start, start + size)]
        assert max(counts) - min(counts) <= 1
        start += size
