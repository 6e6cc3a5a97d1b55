"""Figures of a rollout by hand."""

import math

import pytest

from triphase.phases.rollout_metrics import Means, correlation, deviation, distinct_bigrams, repeated_bigrams


def test_means_leave_out_what_is_not_finite_and_keep_maxima() -> None:
    means = Means()
    means.add({"loss": 1.0, "ratio_max": 1.5, "norm": math.inf})
    means.add({"loss": 2.0, "ratio_max": 1.2, "norm": 3.0})
    assert means.means() == {"loss": 1.5, "ratio_max": 1.5, "norm": 3.0}


def test_correlation_by_hand_and_absent_where_one_side_does_not_vary() -> None:
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert correlation([2, 2], [1, 5]) is None and correlation([1, 2], [3, 3]) is None


def test_distinct_bigrams_by_hand() -> None:
    assert distinct_bigrams(["a b a b", "A B"]) == pytest.approx(2 / 4)
    assert distinct_bigrams(["word", ""]) is None


def test_repeated_bigrams_and_deviations_by_hand() -> None:
    assert repeated_bigrams("a b a b A b") == pytest.approx(3 / 5)  # ab ba | ab ba ab
    assert repeated_bigrams("a b c") == repeated_bigrams("a") == repeated_bigrams("") == 0
    assert deviation([1, 3]) == 1 and deviation([4]) == 0
