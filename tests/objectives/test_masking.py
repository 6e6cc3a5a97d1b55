import statistics
from functools import reduce

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.objectives.examples import noise, response_mask, spoiled
from torch import Tensor

from triphase import objectives
from triphase.objectives import Moments
from triphase.objectives.masking import token_divisor

NINE = torch.tensor([[1.2, 1.3, 1.4], [1.5, 1.6, 1.7], [1.8, 1.9, 2.0]])
ALL = torch.ones(3, 3, dtype=torch.bool)
STATISTICS = [objectives.masked_sum, objectives.masked_mean, objectives.masked_variance]
SCALINGS = [objectives.standardize, objectives.rescale_keep_mean]


# Hand-derived values


def test_whitening_numbers() -> None:
    assert objectives.masked_variance(NINE, ALL).item() == pytest.approx(0.2**2 * 5 / 3, abs=1e-6)  # .066667
    assert objectives.standardize(NINE, ALL)[0].tolist() == pytest.approx([-1.5492, -1.1619, -0.7746], abs=1e-4)
    assert objectives.rescale_keep_mean(NINE, ALL)[0].tolist() == pytest.approx([0.0508, 0.4381, 0.8254], abs=1e-4)


def test_only_counted_elements_enter() -> None:
    x = torch.tensor([[1.0, 3.0, 100.0], [5.0, 100.0, 100.0]])
    mask = response_mask([2, 1], 3)
    assert objectives.masked_sum(x, mask).item() == 9
    assert objectives.masked_mean(x, mask).item() == 3
    assert objectives.masked_variance(x, mask).item() == pytest.approx(8 / 3)
    expected = [-2 / (8 / 3) ** 0.5, 0, 0, 2 / (8 / 3) ** 0.5, 0, 0]
    assert objectives.standardize(x, mask).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_keeping_the_mean_adds_it_to_what_a_pure_scaling_gives() -> None:
    mean, deviation = 1.6, (1 / 15) ** 0.5
    added = objectives.rescale_keep_mean(NINE, ALL) - NINE / deviation
    assert torch.allclose(added, torch.full((3, 3), mean * (1 - 1 / deviation)), atol=1e-4)


# Against the standard library

numbers = st.lists(st.tuples(st.floats(-1e3, 1e3, width=32), st.booleans()), min_size=1, max_size=30).filter(
    lambda pairs: any(counts for _, counts in pairs)
)


@given(numbers)
def test_statistics_agree_with_the_standard_library(pairs: list[tuple[float, bool]]) -> None:
    x = torch.tensor([number for number, _ in pairs], dtype=torch.float64)
    mask = torch.tensor([counts for _, counts in pairs])
    kept = [number for number, counts in pairs if counts]
    found = objectives.moments(x, mask)
    assert found.count.item() == len(kept)
    assert objectives.masked_sum(x, mask).item() == pytest.approx(sum(kept), abs=1e-9)
    assert objectives.masked_mean(x, mask).item() == pytest.approx(statistics.fmean(kept), abs=1e-9)
    assert found.mean.item() == pytest.approx(statistics.fmean(kept), abs=1e-9)
    assert found.variance.item() == pytest.approx(statistics.pvariance(kept), abs=1e-6, rel=1e-9)


def test_whitened_numbers_have_mean_0_and_variance_1() -> None:
    mask = response_mask([7, 2, 5, 1], 9)
    x = 3 + 10 * noise(4, 9)
    white = objectives.standardize(x, mask)
    assert objectives.masked_mean(white, mask).item() == pytest.approx(0, abs=1e-12)
    assert objectives.masked_variance(white, mask).item() == pytest.approx(1, abs=1e-12)
    kept = objectives.rescale_keep_mean(x, mask)
    assert objectives.masked_mean(kept, mask).item() == pytest.approx(objectives.masked_mean(x, mask).item(), abs=1e-12)
    assert objectives.masked_variance(kept, mask).item() == pytest.approx(1, abs=1e-12)


def test_padding_in_whitening_changes_the_result() -> None:
    """Regression: a mean over pads pulls the mean of the real tokens off 0."""
    mask = response_mask([7, 2, 5, 1], 9)
    x = spoiled(3 + noise(4, 9), mask, 0.0)
    faulty = objectives.standardize(x, torch.ones_like(mask))
    assert abs(objectives.masked_mean(faulty, mask).item()) > 0.3
    assert abs(objectives.masked_mean(objectives.standardize(x, mask), mask).item()) < 1e-12


# Padding


@pytest.mark.parametrize("junk", [0.0, 1e30, float("nan"), float("inf")])
@pytest.mark.parametrize("function", STATISTICS + SCALINGS)
def test_what_stands_at_padding_changes_nothing(function: object, junk: float) -> None:
    assert callable(function)
    mask = response_mask([3, 1, 2], 4)
    clean = noise(3, 4)
    results, gradients = [], []
    for x in (clean, spoiled(clean, mask, junk)):
        x = x.clone().requires_grad_()
        result = function(x, mask)
        if function in STATISTICS:
            result.backward()
            gradients.append(x.grad)
        results.append(result.detach())
    assert torch.equal(*results)
    if gradients:
        assert torch.equal(*gradients)


@pytest.mark.parametrize("function", SCALINGS)
def test_padding_comes_out_as_zero(function: object) -> None:
    assert callable(function)
    mask = response_mask([3, 1], 4)
    assert not function(5 + noise(2, 4), mask)[~mask].any()


# Without spread


@pytest.mark.parametrize("value", [0.0, 0.1, -1.0, 12345.678])
@pytest.mark.parametrize("count", [1, 2, 3, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_numbers_have_no_spread(value: float, count: int, dtype: torch.dtype) -> None:
    x = torch.full((count,), value, dtype=dtype)
    mask = torch.ones(count, dtype=torch.bool)
    assert not objectives.standardize(x, mask).any()
    assert torch.equal(objectives.rescale_keep_mean(x, mask), x)


def test_a_spread_that_the_dtype_can_tell_is_kept() -> None:
    x = torch.tensor([1.0, 1.0 + 1e-6])
    assert objectives.standardize(x, torch.ones(2, dtype=torch.bool)).tolist() == pytest.approx([-1, 1], abs=1e-6)


def test_half_precision_is_summed_in_float32() -> None:
    x = torch.full((10_000,), 0.1, dtype=torch.bfloat16)
    mask = torch.ones(10_000, dtype=torch.bool)
    assert objectives.masked_sum(x, mask).dtype == torch.float32
    assert objectives.masked_mean(x, mask).item() == pytest.approx(x[0].item(), rel=1e-5)


# Moments


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(0, 99), st.floats(-1e3, 1e3))
def test_merged_moments_are_those_of_the_whole(sizes: list[int], seed: int, shift: float) -> None:
    x = shift + noise(sum(sizes), seed=seed)
    mask = torch.ones(len(x), dtype=torch.bool)
    parts = [objectives.moments(part, torch.ones_like(part, dtype=torch.bool)) for part in x.split(sizes)]
    merged, whole = reduce(Moments.merge, parts), objectives.moments(x, mask)
    assert merged.count == whole.count
    assert merged.mean.item() == pytest.approx(whole.mean.item(), abs=1e-9)
    assert merged.variance.item() == pytest.approx(whole.variance.item(), abs=1e-9)


def test_whitening_in_parts_equals_whitening_at_once() -> None:
    """Regression: whitening each rank by itself makes the result depend on the number of ranks."""
    mask = response_mask([5, 1, 3, 6], 6)
    x = 2 + noise(4, 6)
    halves = [(x[:2], mask[:2]), (x[2:], mask[2:])]
    merged = reduce(Moments.merge, (objectives.moments(*half) for half in halves))
    for whole, part in [
        (objectives.standardize(x, mask), objectives.standardize_with),
        (objectives.rescale_keep_mean(x, mask), objectives.rescale_keep_mean_with),
    ]:
        together = torch.cat([part(*half, merged) for half in halves])
        assert torch.allclose(together, whole, atol=1e-12)
    apart = torch.cat([objectives.standardize(*half) for half in halves])
    assert not torch.allclose(apart, objectives.standardize(x, mask), atol=1e-2)


# Positions and divisors


def test_last_true_index() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    assert objectives.last_true_index(mask).tolist() == [1, 0, 2]


def test_last_true_index_under_left_padding() -> None:
    """Regression: the sum of the mask minus 1 is another token here."""
    assert objectives.last_true_index(torch.tensor([[False, True, True], [False, False, True]])).tolist() == [2, 2]


def test_a_row_without_a_token_has_no_last_one() -> None:
    with pytest.raises(ValueError, match=r"row \[1\]"):
        objectives.last_true_index(response_mask([1, 0]))


def test_the_divisor_is_the_own_count_or_that_of_the_step() -> None:
    mask = response_mask([2, 1])
    assert token_divisor(mask, None) == 3
    assert token_divisor(mask, 10) == 10
    assert token_divisor(mask, torch.tensor(10)) == 10
    with pytest.raises(ValueError, match="token_count is 2, but 3 tokens"):
        token_divisor(mask, 2)


@pytest.mark.parametrize("function", STATISTICS + SCALINGS + [objectives.moments])
def test_nothing_to_average_is_an_error(function: object) -> None:
    assert callable(function)
    x = torch.ones(2, 2)
    with pytest.raises(ValueError, match="selects no element"):
        function(x, torch.zeros(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="must be bool"):
        function(x, x)
    with pytest.raises(ValueError, match="shape"):
        function(x, torch.ones(2, 1, dtype=torch.bool))


def test_the_given_tensors_stay_as_they_are() -> None:
    x: Tensor = noise(2, 3)
    before, mask = x.clone(), response_mask([3, 1])
    objectives.standardize(x, mask)
    objectives.rescale_keep_mean(x, mask)
    assert torch.equal(x, before)
