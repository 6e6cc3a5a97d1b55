"""What `benchmarks.preferences` tells of score differences."""

import math

import pytest
from benchmarks.preferences import judged


def test_accuracy_and_loss_by_hand() -> None:
    accuracy, loss = judged([2.0, -1.0, 0.0])
    assert accuracy.value == pytest.approx(0.5)
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.e) + math.log(2)) / 3
    assert loss.value == pytest.approx(expected)


def test_large_differences_do_not_overflow() -> None:
    assert judged([1000.0, -1000.0])[1].value == pytest.approx(500)
