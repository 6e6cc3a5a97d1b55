"""Cost and gain of more labelers on each prompt: by hand, by simulation, and without enough data."""

import random

import pytest

from triphase.labeling.quality.agreement import Estimate
from triphase.labeling.quality.overlap_plan import OVERLAPS, accuracy, choices, majority


def test_by_hand() -> None:
    assert accuracy(0.68) == pytest.approx(0.8)  # 0.8² + 0.2²
    assert accuracy(0.5) == accuracy(0.3) == 0.5 and accuracy(1.0) == 1.0
    assert majority(0.8, 1) == pytest.approx(0.8) and majority(0.8, 2) == pytest.approx(0.8)
    assert majority(0.8, 3) == pytest.approx(0.8**3 + 3 * 0.8**2 * 0.2)
    assert majority(0.5, 7) == pytest.approx(0.5) and majority(1.0, 5) == 1.0


def test_as_simulated_labelers_do() -> None:
    draw = random.Random(0)
    for q, count in ((0.7, 3), (0.6, 4), (0.8, 5)):
        right = 0.0
        for _ in range(20_000):
            votes = sum(draw.random() < q for _ in range(count))
            right += 1.0 if 2 * votes > count else 0.5 if 2 * votes == count else 0.0
        assert right / 20_000 == pytest.approx(majority(q, count), abs=0.01)


def test_hours_and_shares() -> None:
    found = choices(Estimate(0.68, 0.5, 0.82, 100, 20), 36.0, 200)
    assert [each.overlap for each in found] == list(OVERLAPS)
    assert [each.hours for each in found] == pytest.approx([2.0 * n for n in OVERLAPS])
    assert (found[2].right, found[2].low) == pytest.approx((0.896, 0.5)) and found[2].high == pytest.approx(
        majority(0.9, 3)
    )
    rights = [each.right for each in found]
    assert rights == sorted(rights)


def test_nothing_is_said_where_nothing_is_known() -> None:
    known = Estimate(0.7, 0.6, 0.8, 10, 5)
    assert not choices(None, 30.0, 10) and not choices(known, None, 10) and not choices(known, 30.0, 0)
    assert not choices(Estimate(0.5, 0.4, 0.6, 10, 5), 30.0, 10), "agreement by chance says nothing of a majority"
