"""Win rate, means, gain at equal length and best of n, against values worked out by hand."""

import math
from itertools import combinations

import numpy as np
import pytest

from triphase.reports.interval_wording import interval_text, percent_interval, signed
from triphase.reports.intervals import DIFFERENCE, SHARE, Interval, mean_over_prompts, ratio_over_prompts
from triphase.reports.policy_comparison import (
    Sample,
    best_of,
    best_of_n,
    best_of_n_kl,
    by_prompt,
    gain,
    length_stratified,
    mean_value,
    win_rate,
)
from triphase.reports.two_way_intervals import interval_over_seeds, pooled_share

FIRST = {"a": [1.0, 3.0], "b": [2.0], "only-here": [9.0]}
SECOND = {"a": [2.0, 3.0], "b": [2.0]}


def test_win_rate_takes_all_pairs_of_a_prompt_and_ties_as_a_half() -> None:
    # a: 1<2, 1<3, 3>2, 3=3 → 1.5 of 4; b: a tie → ½; each prompt alike: (0.375 + 0.5) / 2
    found = win_rate(FIRST, SECOND)
    # of two prompts a bootstrap draws aa with chance ¼, bb with ¼: the bounds are their values
    assert found == Interval(0.4375, 0.375, 0.5, 2)


def test_win_rates_of_two_policies_against_each_other_sum_to_one() -> None:
    forth, back = win_rate(FIRST, SECOND), win_rate(SECOND, FIRST)
    assert forth and back
    assert forth.value + back.value == 1
    assert (win_rate(FIRST, FIRST) or forth).value == 0.5


def test_no_common_prompt_no_win_rate() -> None:
    assert win_rate({"a": [1.0]}, {"b": [1.0]}) is None
    assert win_rate({}, {}) is None and gain({}, {}) is None and mean_value({}) is None


def test_gain_is_paired_by_prompt() -> None:
    found = gain(FIRST, SECOND)
    assert found == Interval(-0.25, -0.5, 0.0, 2)


def test_mean_value_weighs_prompts_alike() -> None:
    found = mean_value({"a": [1.0, 1.0, 1.0], "b": [3.0]})
    assert found and found.value == 2.0


def test_one_prompt_has_no_interval() -> None:
    assert mean_over_prompts([0.7]) == Interval(0.7, None, None, 1)


def test_prompts_that_all_say_the_same_make_nothing_certain() -> None:
    z2 = 1.959963984540054**2
    found = mean_over_prompts([1.0] * 10, within=SHARE)
    assert found and (found.value, found.high) == (1.0, 1.0) and found.low == pytest.approx(10 / (10 + z2))
    found = mean_over_prompts([-1.0] * 10, within=DIFFERENCE)
    assert found and found.low == -1.0 and found.high == pytest.approx(1 - 2 * 10 / (10 + z2))
    found = ratio_over_prompts([1.0, 2.0], [2.0, 4.0], within=SHARE)  # ½ in each; others up to z² / (2 + z²), at 0 or 1
    half = 0.5 * z2 / (2 + z2)
    assert found and found.low == pytest.approx(0.5 - half) and found.high == pytest.approx(0.5 + half)
    score = mean_over_prompts([0.25, 0.25])
    assert score == Interval(0.25, 0.25, 0.25, 2) and interval_text(score) == "0.25" and signed(score) == "+0.25"
    assert interval_text(mean_over_prompts([0.0, 1.0])) == "0.50 (0.00 to 1.00)"
    assert pooled_share([{"a": 1.0, "b": 1.0}] * 3) == mean_over_prompts([1.0, 1.0], within=SHARE)
    assert percent_interval(interval_over_seeds([0.5, 0.5])) == "50 %"


def test_ratio_pools_counts_and_leaves_out_prompts_without_any() -> None:
    found = ratio_over_prompts([1.0, 3.0, 0.0], [2.0, 3.0, 0.0])
    assert found == Interval(0.8, 0.5, 1.0, 2)
    assert ratio_over_prompts([0.0], [0.0]) is None


def test_interval_is_that_of_the_normal_law_for_many_prompts_and_repeats_with_its_seed() -> None:
    values = [float(number % 2) for number in range(400)]
    found = mean_over_prompts(values, seed=3)
    assert found and found.low and found.high
    assert found.low == pytest.approx(0.5 - 1.96 * 0.5 / 20, abs=0.004)
    assert found.high == pytest.approx(0.5 + 1.96 * 0.5 / 20, abs=0.004)
    assert mean_over_prompts(values, seed=3) == found != mean_over_prompts(values, seed=4)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        found = mean_over_prompts(rng.normal(1.0, 1.0, size=40).tolist())
        assert found and found.low is not None and found.high is not None
        covered += found.low <= 1.0 <= found.high
    assert 88 <= covered <= 99


def test_gain_at_equal_length() -> None:
    # bins of up to 12 tokens, and over: gains 2 − 0 = 2 and 3 − 1 = 2, three samples in each; in all 7/3 − 2/3
    first = [(10, 1.0), (12, 3.0), (20, 3.0)]
    second = [(10, 0.0), (20, 0.0), (21, 2.0)]
    found = length_stratified(first, second, bins=2)
    assert found and found.total == pytest.approx(5 / 3) and found.within == pytest.approx(2.0)
    assert [(b.low, b.high, b.first_count, b.second_count, b.gain) for b in found.bins] == [
        (10, 12, 2, 1, 2.0),
        (20, 21, 1, 2, 2.0),
    ]


def test_gain_that_came_with_length_alone_vanishes_at_equal_length() -> None:
    def by_length_alone(lengths: list[int]) -> list[tuple[int, float]]:
        return [(length, length / 10) for length in lengths]

    found = length_stratified(by_length_alone([20, 20, 10]), by_length_alone([10, 10, 20]), bins=2)
    assert found and found.total == pytest.approx(1 / 3) and found.within == pytest.approx(0.0)


def test_lengths_that_never_meet_have_no_gain_at_equal_length() -> None:
    found = length_stratified([(30, 1.0)] * 4, [(5, 0.0)] * 4, bins=2)
    assert found and found.within is None and found.total == 1.0
    assert length_stratified([], [(5, 0.0)]) is None


def test_best_of_n_is_the_mean_over_all_subsets() -> None:
    # pairs of four: the second is best of 1, the third of 2, the fourth of 3 among 6
    curve = best_of_n({"a": [(3.0, 5.0), (1.0, 10.0), (4.0, 1.0), (2.0, 0.0)]})
    assert [(point.n, point.proxy, point.gold) for point in curve] == [
        (1, 2.5, 4.0),
        (2, pytest.approx(20 / 6), pytest.approx(13 / 6)),
        (4, 4.0, 1.0),
    ]
    assert [point.root_kl**2 for point in curve] == pytest.approx([0, 0.1931, 0.6363], abs=1e-4)
    assert best_of_n({}) == []


def test_best_of_n_does_not_peep_at_gold_where_scores_tie() -> None:
    low_last = best_of_n({"a": [(1.0, 7.0), (1.0, 3.0)]})[1].gold
    high_last = best_of_n({"a": [(1.0, 3.0), (1.0, 7.0)]})[1].gold
    assert {low_last, high_last} == {3.0, 7.0}


def test_figures_by_prompt_leave_out_what_is_absent() -> None:
    def sample(policy: str, gold: float | None) -> Sample:
        return Sample("p", "?", policy, 0, "!", True, 3, gold, 0.0, 0.0)

    samples = [sample("ppo", 1.0), sample("ppo", None), sample("sft", 2.0), sample("ppo", math.pi)]
    assert by_prompt(samples, "ppo", lambda each: each.gold) == {"p": [1.0, math.pi]}


def test_the_best_of_n_is_the_mean_over_all_subsets() -> None:
    """Brute force over every subset of n, for every n."""
    rng = np.random.default_rng(0)
    samples = [(float(score), float(gold)) for score, gold in rng.normal(size=(7, 2))]
    for n in range(1, 8):
        subsets = [max(subset) for subset in combinations(samples, n)]
        expected = tuple(sum(each[figure] for each in subsets) / len(subsets) for figure in (0, 1))
        assert best_of(samples, n) == pytest.approx(expected)
    assert [round(best_of_n_kl(n), 4) for n in (1, 2, 4, 8, 64)] == [0.0, 0.1931, 0.6363, 1.2044, 3.1745]
