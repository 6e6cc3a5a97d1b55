"""Temperature scaling: recovered where it was planted, evaluated on prompts that it was not fitted on."""

import math
import random
from dataclasses import astuple

import pytest

from triphase.reports.reward_quality import ScoredPair, like_length
from triphase.reports.temperature import fit_temperature, temperature_scaling


def sure_by(factor: float, count: int, *, seed: int = 0, prefix: str = "p") -> list[ScoredPair]:
    """Labels drawn with probability σ(z), with score differences of ``factor`` times z."""
    draw, found = random.Random(seed), []
    for number in range(count):
        z = draw.gauss(0, 1.5)
        target = float(draw.random() < 1 / (1 + math.exp(-z)))
        found.append(ScoredPair(f"{prefix}{number // 4}", factor * z, 0.0, target, 5, 5))
    return found


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_a_planted_temperature_is_found_again_and_helps(factor: float) -> None:
    found = temperature_scaling(sure_by(factor, 4000), scale=1.0)
    assert found is not None and found.temperature == pytest.approx(factor, rel=0.1)
    assert found.error_after < 0.03 and found.loss_after <= found.loss_before + 1e-3
    halved = temperature_scaling(sure_by(factor, 4000), scale=0.5)
    assert halved is not None and halved.temperature == pytest.approx(found.temperature / 2, rel=1e-6)


def test_scores_in_another_unit_show_the_same() -> None:
    found, same = (temperature_scaling(sure_by(3.0 / scale, 400), scale=scale) for scale in (1.0, 0.25))
    assert found is not None and same is not None and astuple(found) == pytest.approx(astuple(same), abs=1e-9)


def test_the_loss_is_least_there() -> None:
    pairs = sure_by(2.0, 400)

    def loss(temperature: float) -> float:
        margins = [(pair.score_first / temperature, pair.target) for pair in pairs]
        return sum(math.log1p(math.exp(-m if t else m)) for m, t in margins)

    best = fit_temperature(pairs, scale=1.0)
    assert loss(best) <= min(loss(best * step) for step in (0.98, 0.995, 1.005, 1.02))


def test_it_is_judged_on_the_other_half_alone() -> None:
    pairs = sure_by(1.0, 80)
    found = temperature_scaling(pairs, scale=1.0, seed=3)
    prompts = sorted({pair.prompt_id for pair in pairs})
    random.Random(3).shuffle(prompts)
    half = set(prompts[:10])
    sides = [[p for p in pairs if p.prompt_id in half], [p for p in pairs if p.prompt_id not in half]]
    expected = 0.0
    for side, other in (sides, sides[::-1]):
        temperature = fit_temperature(other, scale=1.0)
        margins = [(pair.score_first / temperature, pair.target) for pair in side]
        expected += sum(math.log1p(math.exp(-m if t else m)) for m, t in margins) / 80
    assert found is not None and found.loss_after == pytest.approx(expected, abs=1e-12)


def test_few_prompts_show_nothing_and_labels_without_error_end_at_the_edge() -> None:
    assert temperature_scaling(sure_by(1.0, 36), scale=1.0) is None
    assert temperature_scaling([], scale=1.0) is None
    right = [ScoredPair(str(number), 1.0, 0.0, 1.0, 5, 5) for number in range(20)]
    assert fit_temperature(right, scale=1.0) == pytest.approx(0.05, rel=1e-6)


def test_pairs_of_like_length_are_a_tenth_or_a_word_apart() -> None:
    lengths = [(5, 6), (5, 7), (30, 33), (30, 34), (0, 1)]
    pairs = [ScoredPair("p", 1.0, 0.0, 1.0, a, b) for a, b in lengths]
    assert [(p.words_first, p.words_second) for p in like_length(pairs)] == [(5, 6), (30, 33), (0, 1)]
