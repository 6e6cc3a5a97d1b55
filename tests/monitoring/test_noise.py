"""Standard errors of PPO's figures: hand-derived values, and what random series of known spread give."""

import random
from math import sqrt
from statistics import fmean

import pytest

from triphase.monitoring.noise import Measured, moments


def rows(name: str, values: list[float], episodes: int, **others: float) -> list[dict[str, float]]:
    return [
        {"step": step, "ppo/episodes": float(step * episodes), name: value, **others}
        for step, value in enumerate(values, 1)
    ]


def test_the_error_of_a_mean_is_its_deviation_over_the_root_of_the_episodes() -> None:
    # deviation 6 over 10 episodes, divided by N, so 6/√9 = 2 estimates the error; of three iterations' mean 2/√3
    (found,) = moments(rows("ppo/mean_length", [5.0, 7.0, 9.0], 10, **{"ppo/length_deviation": 6.0}), "ppo/mean_length")
    assert found.start == Measured(1, 5.0, pytest.approx(2.0))
    assert found.now == Measured(3, pytest.approx(7.0), pytest.approx(2 / sqrt(3)))


def test_the_error_of_a_share_is_binomial_and_never_zero() -> None:
    # 8 of 10 by the rule of succession: p = 9/12, √(p(1 − p)/12) = √(0.1875/12) = 0.125
    (found,) = moments(rows("ppo/eos_rate", [0.8] * 3, 10), "ppo/eos_rate")
    assert found.start.error == pytest.approx(0.125)
    (certain,) = moments(rows("ppo/eos_rate", [1.0] * 3, 10), "ppo/eos_rate")
    assert certain.start.error == pytest.approx(sqrt((11 / 12) * (1 / 12) / 12))


def test_the_error_of_a_correlation_is_that_of_large_samples() -> None:
    # (1 − 0.6²)/√(17 − 1) = 0.64/4
    name = "ppo/length_score_correlation"
    (found,) = moments(rows(name, [0.6] * 3, 17), name)
    assert found.start.error == pytest.approx(0.16)


def test_without_a_deviation_the_error_is_that_between_iterations() -> None:
    # 3, 0, 3, 0 …: second differences of size 6; 6/(0.6745·√6)
    found = moments(rows("ppo/clip_fraction", [3.0, 0.0] * 5, 10), "ppo/clip_fraction", window=1)
    assert found[-1].now.error == pytest.approx(6 / (0.6745 * sqrt(6)))
    assert found[3].now.error is None, "of fewer than four second differences nothing is known"


def test_the_error_between_iterations_is_the_deviation_of_independent_values_and_sees_no_trend() -> None:
    draw = random.Random(5)
    errors = []
    for _ in range(40):
        series = [0.7 * step + draw.gauss(0.0, 2.0) for step in range(60)]
        found = moments(rows("ppo/clip_fraction", series, 10), "ppo/clip_fraction", window=1)[-1].now.error
        assert found is not None
        errors.append(found)
    assert fmean(errors) == pytest.approx(2.0, rel=0.06)


def test_a_difference_is_measured_in_the_error_of_the_difference() -> None:
    first, second = Measured(1, 0.0, 3.0), Measured(2, 12.0, 4.0)  # √(9 + 16) = 5, 12 = 2.4 · 5
    assert second.differs(first, 2.3) and not second.differs(first, 2.5)
    assert Measured(2, 12.0, None).differs(first, 2.8) and not Measured(2, 12.0, None).differs(first, 2.9)
    assert not Measured(2, 12.0, None).differs(Measured(1, 0.0, None), 0.0)
