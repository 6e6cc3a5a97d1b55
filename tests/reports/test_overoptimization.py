"""The fitted forms and their peaks on curves with known parameters, and what their intervals hold."""

from math import exp, log

import numpy as np
import pytest

from triphase.reports import overoptimization
from triphase.reports.overoptimization import (
    Form,
    Rollouts,
    best_of_n_points,
    coefficients,
    drawn_of,
    fit,
    gain_at,
    path_of,
    peak_of,
    ppo_points,
)


@pytest.mark.parametrize(("form", "alpha", "beta"), [("best-of-n", 0.9, 0.2), ("ppo", 0.8, 0.3), ("ppo", 0.5, 0.4)])
def test_the_forms_are_those_of_the_paper_and_are_recovered(form: Form, alpha: float, beta: float) -> None:
    d = np.linspace(0.05, 5, 40)
    gain = d * (alpha - beta * d) if form == "best-of-n" else d * (alpha - beta * np.log(d))
    assert coefficients(form, d, gain) == pytest.approx((alpha, beta))
    assert [gain_at(form, alpha, beta, each) for each in d] == pytest.approx(list(gain))
    at, height = peak_of(form, alpha, beta) or (0, 0)
    fine = np.linspace(0.01, 30, 300_000)
    curve = fine * (alpha - beta * fine) if form == "best-of-n" else fine * (alpha - beta * np.log(fine))
    assert at == pytest.approx(fine[curve.argmax()], abs=2e-4) and height == pytest.approx(curve.max())
    expected = (alpha / (2 * beta), alpha**2 / (4 * beta)) if form == "best-of-n" else (
        exp(alpha / beta - 1), beta * exp(alpha / beta - 1))  # fmt: skip
    assert (at, height) == pytest.approx(expected)


def test_a_curve_without_a_peak_has_none() -> None:
    assert peak_of("ppo", 0.5, -0.1) is None and peak_of("best-of-n", -1.0, 0.1) is None
    assert peak_of("ppo", 10.0, 0.01) is None  # beyond any distance
    assert coefficients("ppo", np.array([0.0, 1.0]), np.array([0.0, 1.0])) is None


def test_two_distances_determine_no_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overoptimization, "RESAMPLES", 2)
    d = np.array([0.0, 0.3, 0.5, 0.5, 0.7])
    assert fit("ppo", lambda _: (d[:4], d[:4])) is None
    assert fit("ppo", lambda _: (d, d)) is not None


def rollouts(
    rng: np.random.Generator, *, alpha: float, beta: float, prompts: int = 40, of_seed: float = 0.0
) -> Rollouts:
    """PPO runs whose expected gold follows the form; prompts differ, and seeds by the given amount."""
    steps, batch = 40, 40
    roots = np.linspace(0, 4, steps)
    own, level = alpha + of_seed * rng.normal(), np.random.default_rng(5).normal(size=prompts)
    iteration = np.repeat(np.arange(steps), batch)
    prompt = np.tile(np.arange(prompts), steps * batch // prompts)
    gold = np.array([gain_at("ppo", own, beta, each) for each in roots])[iteration]
    gold = gold + level[prompt] + 0.5 * rng.normal(size=len(iteration))
    kl = (roots**2)[iteration] * rng.exponential(size=len(iteration))
    return Rollouts(iteration, prompt, kl, roots[iteration], gold)


def test_the_peak_of_noisy_runs_is_found_within_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overoptimization, "RESAMPLES", 100)
    rng, truth, held = np.random.default_rng(0), exp(0.8 / 0.5 - 1), 0
    for _ in range(20):
        runs = [rollouts(rng, alpha=0.8, beta=0.5) for _ in range(3)]
        found = fit("ppo", ppo_points(runs, [1.0] * 3, 40))
        assert found is not None and found.peak.value == pytest.approx(truth, rel=0.25)
        held += (found.peak.low or 0) <= truth <= (found.peak.high or 0)
    assert held >= 15


def test_seeds_that_differ_make_intervals_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overoptimization, "RESAMPLES", 100)
    widths = []
    for spread in (0.0, 1.0):
        rng = np.random.default_rng(1)
        runs = [rollouts(rng, alpha=0.8, beta=0.5, of_seed=spread) for _ in range(3)]
        found = fit("ppo", ppo_points(runs, [1.0] * 3, 40))
        assert found is not None and found.alpha.high is not None and found.alpha.low is not None
        widths.append(found.alpha.high - found.alpha.low)
    assert widths[1] > 2 * widths[0]


def test_one_fewer_of_seeds_and_prompts_is_drawn() -> None:
    """So that the variance of a bootstrap mean is that of the mean itself: s²/S, also of three seeds."""
    rng, values = np.random.default_rng(0), np.array([1.0, 2.0, 6.0])
    drawn = [list(drawn_of(rng, 3, 10)) for _ in range(4000)]
    assert all(len(each) == 2 and all(weights.sum() == 9 for _, weights in each) for each in drawn)
    means = [np.mean([values[place] for place, _ in each]) for each in drawn]
    assert np.var(means) == pytest.approx(values.var(ddof=1) / 3, rel=0.1)
    assert [weights.sum() for _, weights in drawn_of(rng, 1, 1)] == [1]


def test_a_path_is_of_means_and_of_gains_over_the_first_rollout() -> None:
    of = Rollouts(
        np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([0.0, 0.0, 3.0, 5.0]), np.array([1.0, 3.0, 4.0, 6.0]),
        np.array([2.0, 4.0, 3.0, 9.0]),
    )  # fmt: skip
    path = path_of(of, 2.0)
    assert list(path.root_kl) == [0.0, 2.0] and list(path.proxy) == [0.0, 3.0] and list(path.gold) == [0.0, 1.5]
    weighted = path_of(of, 2.0, np.array([1.0, 0.0]))  # of the first prompt alone
    assert list(weighted.gold) == [0.0, 0.5] and weighted.root_kl[1] == pytest.approx(3**0.5)


@pytest.mark.parametrize("form", ["ppo", "best-of-n"])
def test_a_sample_that_only_falls_bounds_the_peak_from_below(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is best at the reference: to count it as one without a finite peak would open the upper bound."""
    monkeypatch.setattr(overoptimization, "RESAMPLES", 40)
    d, drawn = np.array([1.0, 2.0, 3.0]), iter([(2.0, 1.0)] * 30 + [(-2.0, -0.01)] * 10)

    def points(rng: np.random.Generator | None) -> tuple[overoptimization.Numbers, overoptimization.Numbers]:
        alpha, beta = (2.0, 1.0) if rng is None else next(drawn)
        return d, np.array([gain_at(form, alpha, beta, each) for each in d])

    found = fit(form, points)
    assert found is not None and found.peak.value is not None and not found.falls
    assert (found.peak.low, found.peak.high) == (0.0, pytest.approx(found.peak.value))
    assert found.height.low == 0.0


def test_bounds_are_quantiles_of_bootstrap_samples_and_open_where_one_without_a_peak_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(overoptimization, "RESAMPLES", 40)
    d = np.array([1.0, 3.0, 2.0])
    drawn = iter([(10.0 + n, 5.0 if n < 38 else -5.0) for n in range(40)])  # two of the 40 have no peak

    def points(rng: np.random.Generator | None) -> tuple[overoptimization.Numbers, overoptimization.Numbers]:
        alpha, beta = (20.0, 5.0) if rng is None else next(drawn)
        return d, d * (alpha - beta * d)

    found = fit("best-of-n", points)
    assert found is not None and found.seen == 3.0
    # A fortieth lies under the lowest of 40, and 39 fortieths up to the last but one.
    assert (found.alpha.low, found.alpha.high) == pytest.approx((10, 48))
    assert (found.beta.low, found.beta.high) == pytest.approx((-5, 5))
    assert found.peak.value == pytest.approx(2) and found.peak.low == pytest.approx(1) and found.peak.high is None
    assert found.height.low == pytest.approx(10**2 / 20) and found.height.high is None


def test_a_bootstrap_sample_of_best_of_n_counts_prompts_as_often_as_they_are_drawn() -> None:
    tables, roots = (
        [np.array([[1.0, 2.0], [3.0, 8.0], [0.0, 5.0]]) + shift for shift in (0.0, 1.0)],
        np.array([0.5, 1.0]),
    )
    _, gains = best_of_n_points(tables, roots)(np.random.default_rng(1))
    ((place, weights),) = drawn_of(np.random.default_rng(1), 2, 3)
    expected = sum(weight * row for weight, row in zip(weights, tables[place], strict=True)) / 2
    assert list(weights) != [1, 1, 1] and gains == pytest.approx(expected)


def test_best_of_n_is_fitted_over_its_sizes() -> None:
    sizes = [2, 4, 8, 16, 32, 64]
    roots = np.array([(log(n) - (n - 1) / n) ** 0.5 for n in sizes])
    rng = np.random.default_rng(0)
    clean = roots * (0.9 - 0.3 * roots)
    tables = [clean + 0.05 * rng.normal(size=(30, len(sizes))) for _ in range(3)]
    found = fit("best-of-n", best_of_n_points(tables, roots))
    assert found is not None and found.alpha.value == pytest.approx(0.9, abs=0.05)
    assert found.peak.low is not None and found.peak.low < 1.5 < (found.peak.high or 9)
    assert found.seen == pytest.approx(roots[-1])
    assert found.at(1.0) == pytest.approx(0.6, abs=0.03)
