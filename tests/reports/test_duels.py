"""Win rates, ratings and win rates at equal length, against values by hand and slow references."""

import math
from itertools import combinations

import numpy as np
import pytest

from triphase.reports.duels import RATING_RESAMPLES, Duel, length_controlled, ratings_of, win_rate_of

ELO = 400 / math.log(10)


def test_each_prompt_counts_once_from_both_sides() -> None:
    duels = [Duel("p", "a", "b", 1.0, 0)] * 3 + [Duel("p", "a", "b", 0.0, 0), Duel("q", "b", "a", 1.0, 0)]
    ours, theirs = win_rate_of(duels, "a", "b"), win_rate_of(duels, "b", "a")
    assert ours is not None and theirs is not None
    assert ours.value == pytest.approx((0.75 + 0) / 2) and theirs.value == pytest.approx(1 - ours.value)
    assert win_rate_of(duels, "a", "c") is None


def test_ratings_of_two_by_hand() -> None:
    # 6 prompts won of 8, and half a prompt each way: odds 6.5 to 2.5
    duels = [Duel(str(n), "a", "b", float(n < 6), 0) for n in range(8)]
    found = ratings_of(duels, ["a", "b"])
    assert found["a"].value - found["b"].value == pytest.approx(ELO * math.log(6.5 / 2.5))
    assert found["a"].value + found["b"].value == pytest.approx(0)
    assert found["a"].low is not None and found["a"].low < found["a"].value < (found["a"].high or 0)
    assert ratings_of(duels, ["a", "b", "c"]) == {}  # c met nobody
    apart = [*duels, Duel("p", "c", "d", 1.0, 0)]
    assert ratings_of(apart, ["a", "b", "c", "d"]) == {}  # c and d met nobody else: no scale is theirs and the others'
    chain = ratings_of([*apart, Duel("p", "d", "a", 1.0, 0)], ["a", "b", "c", "d"])
    assert chain["c"].value > chain["d"].value > chain["a"].value > chain["b"].value


def test_the_interval_of_a_rating_is_that_of_prompts_drawn_anew() -> None:
    wins = np.array([n < 14 for n in range(20)], dtype=float)
    found = ratings_of([Duel(f"{n:02d}", "a", "b", win, 0) for n, win in enumerate(wins)], ["a", "b"], seed=4)["a"]
    drawn = np.random.default_rng(4).multinomial(20, [1 / 20] * 20, size=RATING_RESAMPLES) @ wins
    # Half a prompt each way, and half of the difference of the two about their mean of 0.
    low, high = np.quantile(ELO / 2 * np.log((drawn + 0.5) / (20 - drawn + 0.5)), (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)


def slow_ratings(duels: list[Duel], sides: list[str]) -> dict[str, float]:
    """The classic fixed point p_i = wins_i / Σ_j games_ij / (p_i + p_j), many times over."""
    prompts = {duel.prompt for duel in duels}
    wins = {pair: 0.5 for one in combinations(sides, 2) for pair in (one, one[::-1])}
    for first, second in combinations(sides, 2):
        for prompt in prompts:
            met = [duel.outcome for duel in duels if (duel.prompt, duel.first, duel.second) == (prompt, first, second)]
            wins[first, second] += sum(met) / len(met)
            wins[second, first] += 1 - sum(met) / len(met)
    p = dict.fromkeys(sides, 1.0)
    for _ in range(3000):
        for i in sides:
            others = [j for j in sides if j != i]
            p[i] = sum(wins[i, j] for j in others) / sum((wins[i, j] + wins[j, i]) / (p[i] + p[j]) for j in others)
    logs = {side: math.log(value) for side, value in p.items()}
    mean = sum(logs.values()) / len(logs)
    return {side: ELO * (value - mean) for side, value in logs.items()}


def test_ratings_agree_with_the_fixed_point() -> None:
    rng, sides, truth = np.random.default_rng(3), ["a", "b", "c", "d"], [1.5, 0.4, -0.3, -1.6]
    duels = [
        Duel(f"p{prompt}", sides[i], sides[j], float(rng.random() < 1 / (1 + math.exp(truth[j] - truth[i]))), 0)
        for prompt in range(25)
        for i, j in combinations(range(4), 2)
        for _ in range(1 + prompt % 3)
    ]
    found = ratings_of(duels, sides)
    assert {side: each.value for side, each in found.items()} == pytest.approx(slow_ratings(duels, sides), abs=1e-4)


def drawn(theta: float, phi: float, *, prompts: int = 400, shift: float = 0.3) -> list[Duel]:
    """Comparisons of the very model, with lengths that differ by a normal number."""
    rng = np.random.default_rng(0)
    gaps = np.round(100 * (rng.normal(size=4 * prompts) + shift)).astype(int)
    chance = 1 / (1 + np.exp(-(theta + phi * np.tanh(gaps / gaps.std()))))
    wins = rng.random(len(gaps)) < chance
    return [
        Duel(f"p{n // 4}", "a", "b", float(win), int(gap)) for n, (win, gap) in enumerate(zip(wins, gaps, strict=True))
    ]


def test_length_that_wins_alone_is_taken_out() -> None:
    duels = drawn(0.0, 3.0, shift=0.8)
    raw, found = win_rate_of(duels, "a", "b"), length_controlled(duels, "a", "b")
    assert raw is not None and found is not None and found.rate is not None
    assert raw.low is not None and raw.low > 0.65
    assert found.rate.value == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("theta", [-0.8, 0.0, 1.2])
def test_the_win_rate_at_equal_length_is_recovered(theta: float) -> None:
    found = length_controlled(drawn(theta, 1.5), "a", "b")
    assert found is not None and found.rate is not None
    assert found.rate.value == pytest.approx(1 / (1 + math.exp(-theta)), abs=0.06)


def test_length_control_agrees_with_a_slow_fit() -> None:
    """Gradient ascent on the penalized likelihood as the module's docstring writes it."""
    duels = drawn(0.7, -1.0, prompts=30)
    gaps = np.array([duel.longer for duel in duels])
    x, y = np.tanh(gaps / gaps.std()), np.array([duel.outcome for duel in duels])
    theta = phi = 0.0
    for _ in range(20000):
        residual = (y - 1 / (1 + np.exp(-(theta + phi * x)))) / 4  # four comparisons of one prompt count as one
        even = 1 / (1 + math.exp(-theta))
        theta += 0.02 * (residual.sum() + 0.5 - even)
        phi += 0.02 * ((residual * x).sum() - phi / 9)
    found = length_controlled(duels, "a", "b")
    assert found is not None and found.rate is not None
    assert found.rate.value == pytest.approx(1 / (1 + math.exp(-theta)), abs=1e-6)
    turned = length_controlled(duels, "b", "a")
    assert turned is not None and turned.rate is not None
    assert turned.rate.value == pytest.approx(1 - found.rate.value)
    assert turned.longer == pytest.approx(1 - found.longer) and found.longer != 0.5


def test_who_is_longer_counts_each_prompt_once_and_decides_from_a_twentieth_on() -> None:
    found = length_controlled([Duel("p", "a", "b", 1.0, 9)] * 3 + [Duel("q", "a", "b", 0.0, -9)], "a", "b")
    assert found is not None and found.longer == 0.5
    for longer, known in ((1, False), (2, True), (38, True), (39, False)):  # of 40 prompts
        duels = [Duel(str(n), "a", "b", float(n % 2), 5 if n < longer else -5) for n in range(40)]
        found = length_controlled(duels, "a", "b")
        assert found is not None and found.longer == longer / 40 and (found.rate is not None) == known


def test_a_side_that_is_always_longer_has_no_win_rate_at_equal_length() -> None:
    duels = [Duel(str(n), "a", "b", 1.0, 10 + n) for n in range(20)]
    found = length_controlled(duels, "a", "b")
    assert found is not None and found.rate is None and found.longer == 1.0
    alike = length_controlled([Duel(str(n), "a", "b", 1.0, 0) for n in range(7)], "a", "b")
    assert alike is not None and alike.rate is not None and alike.longer == 0.5
    assert alike.rate.value == pytest.approx(7.5 / 8)
    assert length_controlled(duels, "a", "c") is None
