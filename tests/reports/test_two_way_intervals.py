"""Intervals over seeds and prompts: values by hand, and how often they hold what they are of."""

import numpy as np
import pytest

from triphase.reports.intervals import mean_over_prompts
from triphase.reports.two_way_intervals import crossed_interval, interval_over_seeds, pooled, pooled_share, t_quantile


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.7062), (2, 4.30265), (3, 3.18245), (10, 2.22814), (30, 2.04227), (10**6, 1.95996)]
)
def test_quantiles_of_student(freedom: float, expected: float) -> None:
    assert t_quantile(freedom) == pytest.approx(expected, abs=2e-4)


def test_a_table_by_hand() -> None:
    # rows 1 and 3, columns 1.5 and 2.5, nothing left over: MS_seeds = 2·2 = 4, MS_prompts = 2·½ = 1, MS_rest = 0
    found = crossed_interval(np.array([[0.5, 1.5], [2.5, 3.5]]))
    freedom = 5**2 / (4**2 / 1 + 1**2 / 1)
    half = t_quantile(freedom) * np.sqrt(5 / 4)
    assert found.value == 2.0 and (found.low, found.high) == pytest.approx((2 - half, 2 + half))


def test_tables_with_a_rest_by_hand() -> None:
    """3 seeds and 4 prompts: freedoms 2, 3 and 6; the variance is that of the mean, over 12."""
    # Row means 0, 3, 6, column means 1, 3, 3, 5: MS_seeds = 4·9 = 36, MS_prompts = 3·8/3 = 8.
    table = np.array([[0.0], [3.0], [6.0]]) + np.array([[-2.0, 0.0, 0.0, 2.0]])
    # What is left over, ±1 in six places: MS_rest = 6/6 = 1.
    table += np.array([[1.0, -1.0, 0.0, 0.0], [-1.0, 0.0, 1.0, 0.0], [0.0, 1.0, -1.0, 0.0]])
    found = crossed_interval(table)
    total = 36 + 8 - 1
    half = t_quantile(total**2 / (36**2 / 2 + 8**2 / 3 + 1**2 / 6)) * np.sqrt(total / 12)
    assert found.value == pytest.approx(3) and (found.low, found.high) == pytest.approx((3 - half, 3 + half))


def test_what_spreads_no_more_than_the_rest_counts_as_nothing() -> None:
    """The other effect alone is left, with its own freedom: that of 3 seeds, or of 4 prompts."""
    rest = np.array([[1.0, -1.0, 0.0, 0.0], [-1.0, 0.0, 1.0, 0.0], [0.0, 1.0, -1.0, 0.0]])  # MS_rest = 1
    seeds = crossed_interval(np.array([[0.0], [3.0], [6.0]]) + rest)  # MS_seeds = 36, MS_prompts = 0
    half = 4.30265 * np.sqrt(36 / 12)
    assert (seeds.low, seeds.high) == pytest.approx((3 - half, 3 + half), abs=1e-3)
    prompts = crossed_interval(np.array([[-2.0, 0.0, 0.0, 2.0]]) + rest)  # MS_prompts = 8, MS_seeds = 0
    half = 3.18245 * np.sqrt(8 / 12)
    assert (prompts.low, prompts.high) == pytest.approx((-half, half), abs=1e-3)


def test_where_neither_spreads_more_than_the_rest_the_rest_is_left() -> None:
    """Opposite gains of two seeds: prompts whose means are equal by chance are no certainty."""
    found = crossed_interval(np.array([[3.0, 1.0], [1.0, 3.0]]))  # MS_seeds = MS_prompts = 0, MS_rest = 4
    half = 12.7062 * np.sqrt(4 / 4)
    assert (found.low, found.value, found.high) == pytest.approx((2 - half, 2, 2 + half), abs=1e-3)


def test_fewer_degrees_of_freedom_than_one_count_as_one() -> None:
    # MS_seeds = MS_prompts = 1.1², MS_rest = 4·½²: the variance 1.42/4 with 1.42²/3.93 degrees of freedom
    found = crossed_interval(np.array([[0.5, -0.5], [-0.5, 0.5]]) + np.array([[0.0, 1.1], [1.1, 2.2]]))
    half = 12.7062 * np.sqrt(1.42 / 4)
    assert (found.low, found.high) == pytest.approx((1.1 - half, 1.1 + half), rel=1e-4)


def test_a_single_prompt_leaves_the_seeds() -> None:
    found = crossed_interval(np.array([[1.0], [2.0], [3.0]]))  # deviation 1, two degrees of freedom
    half = 4.30265 / np.sqrt(3)
    assert (found.low, found.value, found.high) == pytest.approx((2 - half, 2, 2 + half), abs=1e-3)


@pytest.mark.parametrize(("seeds", "of_seeds"), [(3, 0.0), (3, 0.05), (3, 0.3), (5, 0.1)])
def test_intervals_hold_what_they_are_of(seeds: int, of_seeds: float) -> None:
    """Of 400 draws of the model about 380 hold the mean; an interval over prompts alone holds far fewer."""
    rng, held, alone = np.random.default_rng(seeds), 0, 0
    for _ in range(400):
        table = of_seeds * rng.normal(size=(seeds, 1)) + 0.2 * rng.normal(size=(1, 30))
        table = table + 0.2 * rng.normal(size=(seeds, 30))
        found = crossed_interval(table)
        columns = table.mean(axis=0)
        half = 1.96 * columns.std(ddof=1) / np.sqrt(30)
        held += (found.low or 0) < 0 < (found.high or 0)
        alone += abs(columns.mean()) < half
    assert 0.91 * 400 <= held <= 0.985 * 400
    if of_seeds >= 0.1:
        assert alone < 0.85 * 400


def test_prompts_that_a_seed_lacks_are_left_out() -> None:
    by_seed = [{"a": 1.0, "b": 2.0, "c": 9.0}, {"a": 2.0, "b": 4.0}]
    found = pooled(by_seed)
    assert found is not None and found.value == pytest.approx(2.25) and found.prompts == 2
    assert pooled(by_seed[:1]) == mean_over_prompts([1.0, 2.0, 9.0])
    assert pooled([]) is None and pooled([{"a": 1.0}, {"b": 1.0}]) is None


def test_a_share_ends_at_its_ends() -> None:
    found = pooled_share([{"a": 0.0, "b": 0.1}, {"a": 1.0, "b": 0.9}])
    assert found is not None and (found.low, found.high) == (0.0, 1.0) and found.value == pytest.approx(0.5)


def test_over_seeds_alone() -> None:
    found = interval_over_seeds([1.0, 2.0, 3.0])
    assert found is not None and found.value == 2.0
    assert found.high == pytest.approx(2 + 4.30265 / np.sqrt(3), abs=1e-3)
    one = interval_over_seeds([1.0])
    assert one is not None and one.low is None and interval_over_seeds([]) is None
