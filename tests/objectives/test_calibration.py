from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from triphase import objectives


def test_bins_by_hand() -> None:
    probabilities = torch.tensor([0.95, 0.91, 0.15, 0.10, 1.0, 0.0])
    outcomes = torch.tensor([1.0, 0.0, 0.0, 0.5, 1.0, 0.0])
    bins = objectives.reliability(probabilities, outcomes)
    assert [one.count for one in bins] == [1, 2, 0, 0, 0, 0, 0, 0, 0, 3]
    assert (bins[9].low, bins[9].high) == (0.9, 1.0)
    assert bins[9].mean_probability == pytest.approx((0.95 + 0.91 + 1) / 3)
    assert bins[9].observed_frequency == pytest.approx(2 / 3)
    assert bins[1].observed_frequency == pytest.approx(0.25)
    assert bins[2].mean_probability is None
    assert bins[2].observed_frequency is None


def test_error_by_hand() -> None:
    probabilities = torch.tensor([0.95, 0.95, 0.15, 0.15])
    outcomes = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert objectives.expected_calibration_error(probabilities, outcomes) == pytest.approx((0.45 + 0.15) / 2)
    assert objectives.expected_calibration_error(probabilities, outcomes, bins=1) == pytest.approx(0.3)
    probabilities = torch.tensor([0.905, 0.92])  # one of ten bins has both; two of eleven have one each
    assert objectives.expected_calibration_error(probabilities, torch.tensor([0.0, 1.0])) == pytest.approx(0.4125)


def test_true_probabilities_are_calibrated_and_sharpened_ones_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    difference = 1.5 * torch.randn(50_000, generator=generator)
    outcomes = (torch.rand(50_000, generator=generator) < difference.sigmoid()).float()
    assert objectives.expected_calibration_error(difference.sigmoid(), outcomes) < 0.01
    assert objectives.expected_calibration_error((3 * difference).sigmoid(), outcomes) > 0.08


@pytest.mark.parametrize(
    ("probabilities", "outcomes", "bins", "message"),
    [
        ([1.2], [1.0], 10, "probabilities must lie"),
        ([0.2], [2.0], 10, "outcomes must lie"),
        ([0.2], [1.0, 0.0], 10, "outcomes must have the shape"),
        ([], [], 10, "there is no pair"),
        ([0.2], [1.0], 0, "bins must be at least 1"),
    ],
)
def test_bad_input(probabilities: list[float], outcomes: list[float], bins: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        objectives.reliability(torch.tensor(probabilities), torch.tensor(outcomes), bins)


# The noise ceiling


@pytest.mark.parametrize(
    ("agreement", "labelers", "ceiling"),
    [(0.726, 1, 0.836), (0.726, 3, 0.928), (0.5, 1, 0.5), (0.5, 5, 0.5), (1.0, 1, 1.0), (1.0, 3, 1.0)],
)
def test_ceiling_numbers(agreement: float, labelers: int, ceiling: float) -> None:
    assert objectives.noise_ceiling_from_agreement(agreement, labelers) == pytest.approx(ceiling, abs=1e-3)


@given(st.floats(0.5, 1))
def test_two_labelers_of_that_accuracy_agree_as_often(agreement: float) -> None:
    right = objectives.noise_ceiling_from_agreement(agreement)
    assert right**2 + (1 - right) ** 2 == pytest.approx(agreement)


def test_the_majority_by_counting_all_votes() -> None:
    right = objectives.noise_ceiling_from_agreement(0.65)
    expected = 0.0
    for votes in product([True, False], repeat=5):
        if sum(votes) >= 3:
            expected += right ** sum(votes) * (1 - right) ** (5 - sum(votes))
    assert objectives.noise_ceiling_from_agreement(0.65, 5) == pytest.approx(expected)


def test_bad_agreement() -> None:
    with pytest.raises(ValueError, match="agreement must lie between"):
        objectives.noise_ceiling_from_agreement(0.4)
    with pytest.raises(ValueError, match="labelers must be odd"):
        objectives.noise_ceiling_from_agreement(0.7, 2)
