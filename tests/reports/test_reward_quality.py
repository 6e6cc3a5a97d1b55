"""Accuracy, baseline, calibration and liking for length, against values worked out by hand."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triphase.reports.intervals import Interval
from triphase.reports.reward_quality import (
    ScoredPair,
    accuracy,
    length_correlation,
    longer_wins,
    reliability,
    spearman,
)


def pair(prompt: str, first: float, second: float, target: float, words: tuple[int, int] = (5, 5)) -> ScoredPair:
    return ScoredPair(prompt, first, second, target, *words)


PAIRS = [
    pair("a", 2, 1, 1.0, (9, 4)),
    pair("a", 1, 2, 0.8, (3, 8)),
    pair("a", 1, 1, 0.0, (6, 6)),
    pair("b", 0, 3, 0.2, (2, 7)),
    pair("b", 5, 0, 0.5, (1, 2)),
]


def turned(given_pair: ScoredPair) -> ScoredPair:
    return replace(
        given_pair,
        score_first=given_pair.score_second,
        score_second=given_pair.score_first,
        target=1 - given_pair.target,
        words_first=given_pair.words_second,
        words_second=given_pair.words_first,
    )


def test_accuracy_takes_majorities_leaves_out_even_targets_and_halves_ties() -> None:
    # a: right, wrong, tie → 1.5 of 3; b: right, left out → 1 of 1; together 2.5 of 4
    assert accuracy(PAIRS) == Interval(0.625, 0.5, 1.0, 2)


def test_longer_wins_is_the_accuracy_of_word_counts() -> None:
    # a: longer is preferred, longer is not, equal → 1.5 of 3; b: the second is longer and preferred → 1 of 1
    assert longer_wins(PAIRS) == Interval(0.625, 0.5, 1.0, 2)
    assert (longer_wins([pair("a", 0, 0, 1.0, (2, 9))]) or Interval(1, None, None, 0)).value == 0.0


def test_a_constant_reward_model_is_half_right() -> None:
    found = accuracy([pair(str(number), 1, 1, 1.0) for number in range(10)])
    assert found and found.value == 0.5


def test_nothing_decided_no_accuracy() -> None:
    assert accuracy([]) is None and accuracy([pair("a", 1, 0, 0.5)]) is None and reliability([]) is None


def test_calibration_error() -> None:
    margin = math.log(3)  # σ = 0.75
    right = [pair("a", margin, 0, target) for target in (1.0, 1.0, 1.0, 0.0)]
    unsure = [pair("a", margin, 0, target) for target in (1.0, 1.0, 0.0, 0.0)]
    found, wrong = reliability(right), reliability(unsure)
    assert found and found.error == pytest.approx(0.0, abs=1e-12)
    assert wrong and wrong.error == pytest.approx(0.25)
    assert [(b.low, b.high, b.count) for b in wrong.bins] == [(0.2, pytest.approx(0.3), 4), (0.7, 0.8, 4)]
    assert (wrong.bins[1].predicted, wrong.bins[1].observed) == (pytest.approx(0.75), 0.5)


def test_scores_that_calibration_divided_are_brought_back() -> None:
    calibrated = [pair("a", math.log(3) / 4, 0, target) for target in (1.0, 1.0, 1.0, 0.0)]
    found, forgotten = reliability(calibrated, scale=4.0), reliability(calibrated)
    assert found and found.error == pytest.approx(0.0, abs=1e-12)
    assert forgotten and forgotten.error > 0.1


def test_soft_targets_and_ties_are_probabilities_in_the_calibration() -> None:
    found = reliability([pair("a", 0, 0, 0.5), pair("a", math.log(3), 0, 0.75)])
    assert found and found.error == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.builds(
            pair,
            st.sampled_from("abc"),
            st.floats(-9, 9),
            st.floats(-9, 9),
            st.sampled_from((0.0, 0.25, 0.5, 1.0)),
            st.tuples(st.integers(0, 30), st.integers(0, 30)),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_nothing_depends_on_which_response_is_called_first(pairs: list[ScoredPair]) -> None:
    other = [turned(each) for each in pairs]
    for figure in (accuracy, longer_wins):
        assert getattr(figure(pairs), "value", None) == getattr(figure(other), "value", None)
    one, two = reliability(pairs), reliability(other)
    assert one and two and one.error == pytest.approx(two.error, abs=1e-9)


def test_extreme_scores_do_not_overflow() -> None:
    found = reliability([pair("a", 1e4, -1e4, 1.0)])
    assert found and found.error == pytest.approx(0.0)


def test_spearman_by_hand() -> None:
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert spearman([1, 2, 3], [100, 10, 1]) == pytest.approx(-1.0)
    assert spearman([1, 2], [7, 7]) is None


def test_length_correlation_is_within_prompts() -> None:
    # Long prompts' answers are long and score low, yet within each prompt the longer scores higher.
    pairs = [pair("a", 5, 4, 1.0, (9, 3)), pair("b", 1, 0, 1.0, (90, 80)), pair("c", 2, 2, 0.5, (1, 9))]
    found = length_correlation(pairs)  # 1 in both prompts; others up to z² / (2 + z²) = 0.658, at −1
    assert found == Interval(1.0, pytest.approx(1 - 2 * 0.6576, abs=1e-4), 1.0, 2)
