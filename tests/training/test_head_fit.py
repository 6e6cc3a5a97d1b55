"""The fit of a linear score, and the choice of its penalty by cross-validation over prompts."""

import math

import pytest
import torch

from triphase.training import head_fit
from triphase.training.head_fit import PENALTIES, StackedPairs, choose_penalty, fit_count, fit_linear_scores


def comparisons(prompts: int, *, signal: float, width: int = 40, seed: int = 0) -> tuple[torch.Tensor, StackedPairs]:
    """One pair for each prompt; the first feature decides by ``signal``, the others are noise."""
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(2 * prompts, width, generator=draw)
    first, second = torch.arange(prompts) * 2, torch.arange(prompts) * 2 + 1
    odds = torch.sigmoid(signal * (features[first, 0] - features[second, 0]))
    target = (torch.rand(prompts, generator=draw) < odds).float()
    return features, StackedPairs(first, second, target, torch.zeros(prompts), torch.arange(prompts))


def loss_of(weight: torch.Tensor, bias: float, features: torch.Tensor, pairs: StackedPairs) -> float:
    scores = features @ weight + bias
    signs = 2 * pairs.target - 1
    return float(torch.nn.functional.softplus(-signs * (scores[pairs.first] - scores[pairs.second])).mean())


@pytest.mark.parametrize("signal", [0.0, 0.5, 2.0])
def test_the_chosen_penalty_is_as_good_on_fresh_pairs_as_the_best_one(signal: float) -> None:
    features, pairs = comparisons(150, signal=signal)
    fresh = comparisons(4000, signal=signal, seed=1)
    found = choose_penalty(features, pairs, range(150), seed=0)
    losses = {penalty: loss_of(*fit_linear_scores(features, pairs, penalty=penalty), *fresh) for penalty in PENALTIES}
    assert losses[found.penalty] < min(losses.values()) + 0.02
    assert losses[found.penalty] < math.log(2) + 0.005  # where nothing is to be learned it claims nothing
    assert losses[PENALTIES[-1]] > losses[found.penalty] + 0.1  # a weak penalty over-fits
    assert found.loss == pytest.approx(losses[found.penalty], abs=0.08)


def test_the_curve_has_every_penalty_and_its_minimum_is_chosen() -> None:
    features, pairs = comparisons(60, signal=1.0)
    found = choose_penalty(features, pairs, range(60), seed=0)
    assert [penalty for penalty, _ in found.curve] == list(PENALTIES)
    assert found.loss == min(loss for _, loss in found.curve) == dict(found.curve)[found.penalty]


def test_the_choice_repeats_and_counts_its_fits() -> None:
    features, pairs = comparisons(40, signal=1.0)
    fits: list[None] = []
    found = choose_penalty(features, pairs, range(40), seed=3, on_fit=lambda: fits.append(None))
    assert found == choose_penalty(features, pairs, range(40), seed=3)
    assert len(fits) == fit_count(range(40)) == 5 * len(PENALTIES)


def test_the_curve_is_that_of_fits_without_the_folds_prompts() -> None:
    """Two prompts are two folds: each is judged by the fit to the other alone."""
    features, pairs = comparisons(12, signal=1.0, width=3)
    prompts = [number % 2 for number in range(12)]
    curve = dict(choose_penalty(features, pairs, prompts, seed=0).curve)
    side = torch.tensor(prompts)
    for penalty in (10.0, 0.1):
        expected = 0.0
        for left in (0, 1):
            fitted = fit_linear_scores(features, pairs.where(side != left), penalty=penalty)
            expected += loss_of(*fitted, features, pairs.where(side == left)) / 2
        assert curve[penalty] == pytest.approx(expected, abs=1e-5)


def test_rankings_of_one_prompt_are_never_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    features, pairs = comparisons(30, signal=1.0)
    prompts = [number // 3 for number in range(30)]
    seen: list[set[int]] = []

    def solve(x, fitted, penalty, start, flips):
        seen.append({prompts[group] for group in fitted.group.tolist()})
        return start

    monkeypatch.setattr(head_fit, "_solve", solve)
    choose_penalty(features, pairs, prompts, seed=0)
    assert all(len(prompt_set) == 8 for prompt_set in seen)  # 2 of 10 prompts are left out, with all their rankings


def test_one_prompt_leaves_nothing_to_choose_by() -> None:
    features, pairs = comparisons(4, signal=1.0)
    found = choose_penalty(features, pairs, ["same"] * 4, seed=0)
    assert (found.penalty, found.curve, found.loss) == (head_fit.UNCHOSEN, (), None)
    assert fit_count(["same"] * 4) == 0
