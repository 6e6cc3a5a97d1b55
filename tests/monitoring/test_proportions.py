"""The interval if all observations are equal: by hand, and as Wilson's for a proportion."""

import math

import pytest

from triphase.monitoring.proportions import of_the_same

Z = 1.959963984540054


@pytest.mark.parametrize("count", [1, 10, 57])
def test_a_share_of_all_and_of_none_has_wilsons_bounds(count: int) -> None:
    """(p + z²/2n ± z·√(p(1 − p)/n + z²/4n²)) / (1 + z²/n), written out."""
    for share in (0.0, 1.0):
        middle, half = share + Z**2 / (2 * count), Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
        wilson = tuple(bound / (1 + Z**2 / count) for bound in (middle - half, middle + half))
        assert of_the_same(share, count) == pytest.approx(wilson, abs=1e-12)


def test_by_hand() -> None:
    """z² = 3.8415: ten of ten are 10 / 13.8415 to 1; of a difference of 0.5 over four, u = 3.8415 / 7.8415."""
    assert of_the_same(1.0, 10) == pytest.approx((0.72246, 1.0), abs=1e-5)
    assert of_the_same(0.5, 4, -1.0, 1.0) == pytest.approx((0.5 - 0.48989 * 1.5, 0.5 + 0.48989 * 0.5), abs=1e-4)
