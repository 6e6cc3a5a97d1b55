"""Seeds, orders and microbatches depend on the run's seed alone, on every machine and in every version."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from triphase.batches import order
from triphase.batches.order import generator, microbatches, permutation, seed_of

lengths = st.lists(st.integers(1, 40), max_size=60)


# Seeds. A value that changes here makes every run of an earlier version impossible to continue.


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((0,), 3456079177858693020),
        ((0, "adapter"), 3644930922930617960),
        ((7, "ppo", "sampling", 3, 11), 1323627312063028830),
    ],
)
def test_a_seed_is_the_same_for_ever(names: tuple[int | str, ...], expected: int) -> None:
    assert seed_of(*names) == expected


def test_names_are_kept_apart() -> None:
    seeds = [seed_of(0, "a", "bc"), seed_of(0, "ab", "c"), seed_of(0, "abc"), seed_of(1, "abc"), seed_of(0, "abc", 0)]
    assert len(set(seeds)) == len(seeds)


@given(st.integers(), st.lists(st.one_of(st.text(), st.integers()), max_size=4))
def test_a_seed_has_63_bits(seed: int, names: list[str | int]) -> None:
    assert 0 <= seed_of(seed, *names) < 2**63


def test_a_generator_owes_nothing_to_what_was_drawn_before() -> None:
    first = torch.rand(3, generator=generator(0, "x"))
    torch.rand(5)
    assert torch.equal(first, torch.rand(3, generator=generator(0, "x")))
    assert not torch.equal(first, torch.rand(3, generator=generator(0, "y")))


# Orders


def test_an_order_is_the_same_for_ever() -> None:
    assert permutation(8, 0, "ppo", "order", 0) == [2, 5, 4, 3, 7, 0, 6, 1]


@given(st.integers(0, 50), st.integers(0, 9))
def test_an_order_holds_each_number_once(count: int, seed: int) -> None:
    assert sorted(permutation(count, seed, "x")) == list(range(count))


def test_orders_of_other_epochs_differ() -> None:
    assert permutation(20, 0, "order", 0) != permutation(20, 0, "order", 1)


# Microbatches


@given(lengths, st.integers(1, 120))
def test_microbatches_are_a_partition(sizes: list[int], most: int) -> None:
    groups = microbatches(sizes, max_tokens=most, on_card=False)
    assert sorted(index for group in groups for index in group) == list(range(len(sizes)))
    assert all(groups)


@given(lengths, st.integers(1, 120))
def test_no_microbatch_is_larger_than_allowed_but_a_long_sample_alone(sizes: list[int], most: int) -> None:
    for group in microbatches(sizes, max_tokens=most, on_card=False):
        assert len(group) == 1 or len(group) * max(sizes[index] for index in group) <= most


@given(lengths, st.integers(1, 120))
def test_neighbors_are_of_similar_length(sizes: list[int], most: int) -> None:
    flat = [sizes[index] for group in microbatches(sizes, max_tokens=most, on_card=False) for index in group]
    assert flat == sorted(flat)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=9), st.integers(1, 1500))
def test_no_other_division_costs_less(sizes: list[int], most: int) -> None:
    """Against all divisions of the sorted samples, one by one."""

    def cost(groups: list[list[int]]) -> int:
        return sum(max(group) * len(group) + order._PASS_TOKENS for group in groups)

    ordered = sorted(sizes)
    divisions = [_cut(ordered, cuts) for cuts in itertools.product([False, True], repeat=len(ordered) - 1)]
    least = min(
        cost(groups)
        for groups in divisions
        if all(len(group) == 1 or max(group) * len(group) <= most for group in groups)
    )
    found = microbatches(sizes, max_tokens=most, on_card=False)
    assert cost([[sizes[index] for index in group] for group in found]) == least


def _cut(ordered: list[int], cuts: tuple[bool, ...]) -> list[list[int]]:
    groups = [[ordered[0]]]
    for size, cut in zip(ordered[1:], cuts, strict=True):
        if cut:
            groups.append([size])
        else:
            groups[-1].append(size)
    return groups


def test_a_long_sample_does_not_pad_short_ones() -> None:
    assert microbatches([10, 300, 12, 11], max_tokens=4096, on_card=False) == [[0, 3, 2], [1]]


def test_all_that_fits_is_one_microbatch() -> None:
    assert microbatches([3, 1, 2], max_tokens=9, on_card=False) == [[1, 2, 0]]
    assert microbatches([], max_tokens=9, on_card=False) == []


@pytest.mark.parametrize(("on_card", "most"), [(False, 512), (True, 4096)])
@pytest.mark.parametrize("machine_has_one", [False, True])
def test_without_a_bound_it_is_that_of_the_device_of_the_run(
    on_card: bool, most: int, machine_has_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else the machine has: `model.device: cpu` on one with a GPU, and a plan for a GPU on one without."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: machine_has_one)
    sizes = [32] * 400
    found = microbatches(sizes, max_tokens=None, on_card=on_card)
    assert max(len(group) for group in found) == most // 32
    assert found == microbatches(sizes, max_tokens=most, on_card=on_card)


def test_a_pass_costs_more_padding_on_a_gpu_than_on_a_cpu() -> None:
    """Two rows of 10 and 100 tokens: one pass has 90 tokens of padding, two have none."""
    assert len(microbatches([10, 100], max_tokens=1000, on_card=False)) == 2
    assert microbatches([10, 100], max_tokens=1000, on_card=True) == [[0, 1]]
