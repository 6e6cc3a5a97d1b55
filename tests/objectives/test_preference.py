import math
from itertools import combinations, permutations
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.objectives.examples import noise
from torch import Tensor

from triphase import objectives


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def one_pair(difference: float, target: float = 1.0, margin: float | None = None, **options: Any) -> float:
    """The loss of one pair whose scores differ by this much."""
    loss, _ = objectives.bradley_terry_loss(
        numbers(difference, 0.0),
        torch.tensor([0]),
        torch.tensor([1]),
        numbers(target),
        group=torch.tensor([0]),
        margin=None if margin is None else numbers(margin),
        **options,
    )
    return loss.item()


def ranked(*rankings: list[float]) -> dict[str, Tensor]:
    """All pairs of rankings given by the scores of their responses, best first."""
    pairs, offset = [], 0
    for group, ranking in enumerate(rankings):
        pairs += [(offset + i, offset + j, group) for i, j in combinations(range(len(ranking)), 2)]
        offset += len(ranking)
    first, second, group_ = (torch.tensor(column) for column in zip(*pairs, strict=True))
    scores = numbers(*(score for ranking in rankings for score in ranking))
    return {"scores": scores, "first": first, "second": second, "target": torch.ones(len(first)), "group": group_}


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


# Hand-derived values


@pytest.mark.parametrize(
    ("difference", "loss"), [(0, 0.693147), (0.5, 0.474077), (0.8, 0.371101), (1, 0.313262), (2, 0.126928)]
)
def test_loss_of_one_pair(difference: float, loss: float) -> None:
    assert one_pair(difference) == pytest.approx(loss, abs=1e-6)
    assert one_pair(-difference, target=0.0) == pytest.approx(loss, abs=1e-6)
    assert one_pair(difference, target=0.0) == pytest.approx(loss + difference, abs=1e-6)


# Labels that are flipped with a known probability


@pytest.mark.parametrize(
    ("correction", "right", "wrong"),
    [
        ("forward", 0.448422, 1.017867),  # -ln(0.8·0.731059 + 0.2·0.268941), -ln(0.8·0.268941 + 0.2·0.731059)
        ("unbiased", -0.020071, 1.646595),  # (0.8·0.313262 - 0.2·1.313262)/0.6, (0.8·1.313262 - 0.2·0.313262)/0.6
    ],
)
def test_values_by_hand_at_a_flip_rate_of_a_fifth(correction: str, right: float, wrong: float) -> None:
    options = {"flip_rate": 0.2, "flip_correction": correction}
    assert one_pair(1.0, **options) == pytest.approx(right, abs=1e-6)
    assert one_pair(1.0, target=0.0, **options) == pytest.approx(wrong, abs=1e-6)
    assert one_pair(-1.0, target=0.0, **options) == pytest.approx(right, abs=1e-6)  # the sides may be swapped


@given(difference=st.floats(-8, 8), rate=st.floats(0.0, 0.45))
def test_the_unbiased_loss_is_that_of_the_clean_label_on_average(difference: float, rate: float) -> None:
    options = {"flip_rate": rate, "flip_correction": "unbiased"}
    kept, flipped = one_pair(difference, **options), one_pair(difference, target=0.0, **options)
    expected = one_pair(difference)
    assert (1 - rate) * kept + rate * flipped == pytest.approx(
        expected, abs=1e-8 + 1e-9 * abs(flipped) / (1 - 2 * rate)
    )


@given(difference=st.floats(-8, 8), rate=st.floats(0.0, 0.45))
def test_the_forward_loss_is_the_likelihood_of_what_is_seen(difference: float, rate: float) -> None:
    options = {"flip_rate": rate, "flip_correction": "forward"}
    seen = math.exp(-one_pair(difference, **options))
    clean = 1 / (1 + math.exp(-difference))
    assert seen == pytest.approx((1 - rate) * clean + rate * (1 - clean), rel=1e-9)
    assert seen + math.exp(-one_pair(difference, target=0.0, **options)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("correction", ["forward", "unbiased"])
@pytest.mark.parametrize("clean", [0.0, 0.5, 1.5, -2.0])
def test_the_best_difference_is_that_of_the_clean_labels(correction: str, clean: float) -> None:
    rate = 0.3
    observed = rate + (1 - 2 * rate) / (1 + math.exp(-clean))
    steps = [number / 100 for number in range(-400, 401)]
    losses = {d: one_pair(d, target=observed, flip_rate=rate, flip_correction=correction) for d in steps}
    assert min(steps, key=lambda d: losses[d]) == pytest.approx(clean, abs=0.011)
    plain = {d: one_pair(d, target=observed) for d in steps}
    assert abs(min(steps, key=lambda d: plain[d])) <= abs(clean) / 2 + 0.01  # flips shrink it where nothing is done


def test_a_label_that_is_contradicted_by_far_pulls_no_more_under_forward() -> None:
    def pull(**options: Any) -> float:
        scores = numbers(-10.0, 0.0).requires_grad_()
        at = torch.tensor([0]), torch.tensor([1]), numbers(1.0)
        loss, _ = objectives.bradley_terry_loss(scores, *at, group=torch.tensor([0]), **options)
        loss.backward()
        return -float(scores.grad[0])

    weak = 0.6 * (s := 1 / (1 + math.exp(10))) * (1 - s) / (0.8 * s + 0.2 * (1 - s))
    assert pull(flip_rate=0.2) == pytest.approx(weak, rel=1e-9) and weak < 2e-4
    assert pull() == pytest.approx(1 - s, rel=1e-9)
    assert pull(flip_rate=0.2, flip_correction="unbiased") == pytest.approx((0.8 * (1 - s) + 0.2 * s) / 0.6, rel=1e-9)


def test_without_flips_nothing_changes_to_the_bit() -> None:
    for correction in ("forward", "unbiased"):
        assert one_pair(0.7, flip_rate=0.0, flip_correction=correction) == one_pair(0.7)


@pytest.mark.parametrize("options", [{"flip_rate": 0.5}, {"flip_rate": -0.1}, {"flip_correction": "backward"}])
def test_a_flip_rate_that_says_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="flip_"):
        one_pair(1.0, **options)


@pytest.mark.parametrize(("ranking", "loss"), [([2, 1, 0], 0.251150), ([2, 1, 0.5, -1], 0.227613)])
def test_all_pairs_of_one_ranking(ranking: list[float], loss: float) -> None:
    assert objectives.bradley_terry_loss(**ranked(ranking))[0].item() == pytest.approx(loss, abs=1e-6)


def test_a_ranking_of_four_weighs_as_much_as_one_of_two() -> None:
    loss, metrics = objectives.bradley_terry_loss(**ranked([2, 1, 0.5, -1], [1, 0]))
    assert loss.item() == pytest.approx((0.227613 + 0.313262) / 2, abs=1e-6)
    assert metrics.pair_count == 7
    mean_over_pairs = (6 * 0.227613 + 0.313262) / 7
    assert abs(loss.item() - mean_over_pairs) > 0.02


def test_gradient_is_one_minus_the_probability() -> None:
    scores = numbers(1.3, 0.5).requires_grad_()
    loss, metrics = objectives.bradley_terry_loss(
        scores, torch.tensor([0]), torch.tensor([1]), torch.ones(1), group=torch.tensor([9])
    )
    loss.backward()
    surprise = 1 - 1 / (1 + math.exp(-0.8))
    assert scores.grad is not None
    assert scores.grad.tolist() == pytest.approx([-surprise, surprise])
    assert metrics.margin_mean is not None and not metrics.margin_mean.requires_grad


# Microbatches


def test_microbatches_add_up_to_the_step() -> None:
    rankings = [[2, 1, 0.5, -1], [1, 0], [0.3, 0.2, -0.5]]
    whole, _ = objectives.bradley_terry_loss(**ranked(*rankings))
    parts = [objectives.bradley_terry_loss(**ranked(ranking), group_count=3)[0] for ranking in rankings]
    assert sum(parts).item() == pytest.approx(whole.item(), abs=1e-12)


def test_group_numbers_and_pair_order_mean_nothing() -> None:
    batch = ranked([2, 1, 0.5, -1], [1, 0], [0.3, 0.2, -0.5])
    whole, _ = objectives.bradley_terry_loss(**batch)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    shuffled = {name: x if name == "scores" else x[order] for name, x in batch.items()}
    shuffled["group"] = 100 - 7 * shuffled["group"]
    assert objectives.bradley_terry_loss(**shuffled)[0].item() == pytest.approx(whole.item(), abs=1e-12)


# Ties, margins, smoothing: what the loss wants


def best_difference(**options: Any) -> float:
    """The score difference at which the loss of one pair is least, by bisection of its slope."""
    low, high = -20.0, 20.0
    for _ in range(80):
        middle = (low + high) / 2
        if one_pair(middle + 1e-6, **options) > one_pair(middle - 1e-6, **options):
            high = middle
        else:
            low = middle
    return (low + high) / 2


@pytest.mark.parametrize(
    ("options", "best"),
    [
        ({"target": 0.5}, 0.0),
        ({"target": 0.5, "margin": 3.0}, 0.0),
        ({"label_smoothing": 0.1}, 2.1972),
        ({"label_smoothing": 0.05}, 2.9444),
        ({"target": 0.0, "label_smoothing": 0.05}, -2.9444),
        ({"target": 0.5, "label_smoothing": 0.2}, 0.0),
        ({"target": 0.8}, math.log(4)),
        ({"target": 0.8, "margin": 1.0}, math.log(4) + 0.6),
        ({"target": 0.2, "margin": 1.0}, -math.log(4) - 0.6),
        ({"label_smoothing": 0.1, "margin": 1.0}, 3.1972),
        # Labels drawn at a difference of 2 and flipped with probability .164
        ({"target": 1 / (1 + math.exp(-2)), "label_smoothing": 0.164}, 1.13),
    ],
)
def test_the_best_difference(options: dict[str, float], best: float) -> None:
    assert best_difference(**options) == pytest.approx(best, abs=2e-3)


def test_the_margin_asks_for_more_in_the_direction_of_the_preferred() -> None:
    assert one_pair(2, margin=1.0) == pytest.approx(0.313262, abs=1e-6)
    assert one_pair(-2, target=0.0, margin=1.0) == pytest.approx(0.313262, abs=1e-6)
    assert one_pair(2, margin=0.0) == one_pair(2)
    assert one_pair(0.7, target=0.5, margin=1.0) == one_pair(0.7, target=0.5)


@given(st.floats(-5, 5), st.floats(0, 1), st.floats(0, 3), st.floats(0, 0.4), st.floats(0, 1), st.floats(-3, 3))
def test_the_formula_and_the_symmetry_of_a_pair(
    difference: float, target: float, margin: float, smoothing: float, centering: float, offset: float
) -> None:
    def loss(first: int, second: int, target: float) -> float:
        found, _ = objectives.bradley_terry_loss(
            numbers(difference + offset, offset),
            torch.tensor([first]),
            torch.tensor([second]),
            numbers(target),
            group=torch.tensor([0]),
            margin=numbers(margin),
            label_smoothing=smoothing,
            centering=centering,
        )
        return found.item()

    shifted = difference - (2 * target - 1) * margin
    flipped = target * (1 - smoothing) + (1 - target) * smoothing
    expected = -flipped * log_sigmoid(shifted) - (1 - flipped) * log_sigmoid(-shifted)
    expected += centering * (difference + 2 * offset) ** 2
    assert loss(0, 1, target) == pytest.approx(expected, abs=1e-9)
    assert loss(1, 0, 1 - target) == pytest.approx(expected, abs=1e-9)


def test_an_offset_of_a_prompt_changes_nothing_but_the_centering() -> None:
    batch = ranked([2, 1, 0], [1, 0])
    moved = {**batch, "scores": batch["scores"] + numbers(5, 5, 5, -3, -3)}
    assert objectives.bradley_terry_loss(**moved)[0].item() == pytest.approx(
        objectives.bradley_terry_loss(**batch)[0].item(), abs=1e-12
    )
    centered, _ = objectives.bradley_terry_loss(**batch, centering=0.01)
    assert centered.item() == pytest.approx(
        objectives.bradley_terry_loss(**batch)[0].item() + 0.01 * ((9 + 4 + 1) / 3 + 1) / 2, abs=1e-12
    )


# Metrics


def test_metrics() -> None:
    _, metrics = objectives.bradley_terry_loss(
        numbers(2, 1, 1, 0),
        first=torch.tensor([0, 1, 3, 0]),
        second=torch.tensor([1, 2, 1, 3]),
        target=numbers(1, 1, 0.9, 0.5),
        group=torch.zeros(4, dtype=torch.long),
    )
    assert metrics.pair_count == 4
    assert metrics.decided_count == 3
    assert metrics.preference_accuracy is not None and metrics.margin_mean is not None
    assert metrics.preference_accuracy.item() == pytest.approx((1 + 0.5 + 0) / 3)
    assert metrics.margin_mean.item() == pytest.approx((1 + 0 - 1) / 3)
    assert metrics.score_deviation.item() == pytest.approx(0.5**0.5)


def test_a_constant_scorer_is_seen_through() -> None:
    """Regression: counting equal scores as right gave a published model an accuracy of .9951 at a loss of .6931."""
    loss, metrics = objectives.bradley_terry_loss(**ranked([0.3, 0.3, 0.3], [0.3, 0.3]))
    assert loss.item() == pytest.approx(math.log(2))
    assert metrics.preference_accuracy is not None
    assert metrics.preference_accuracy.item() == 0.5
    assert metrics.score_deviation.item() == 0


def test_accuracy_over_ties_alone_is_absent() -> None:
    batch = {**ranked([1, 0]), "target": torch.tensor([0.5])}
    _, metrics = objectives.bradley_terry_loss(**batch)
    assert metrics.preference_accuracy is None
    assert metrics.margin_mean is None
    assert metrics.decided_count == 0


# Learning what is known


def test_scores_behind_bradley_terry_labels_are_found() -> None:
    truth = numbers(1.5, 0.4, -0.2, -1.7)
    batch = ranked([1.0] * 4)
    difference = truth[batch["first"]] - truth[batch["second"]]
    chance = difference.sigmoid()
    batch["target"], batch["scores"] = chance, torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([batch["scores"]], max_iter=100, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss, _ = objectives.bradley_terry_loss(**batch)
        loss.backward()
        return loss

    optimizer.step(closure)
    found = batch["scores"].detach()
    assert torch.allclose(found - found.mean(), truth - truth.mean(), atol=1e-6)
    floor = -(chance * chance.log() + (1 - chance) * (1 - chance).log()).mean()
    loss, metrics = objectives.bradley_terry_loss(**batch)
    assert loss.item() == pytest.approx(floor.item(), abs=1e-9)
    assert metrics.preference_accuracy is not None and metrics.preference_accuracy.item() == 1


def test_accuracy_against_noisy_labels_stops_at_its_ceiling() -> None:
    difference = 1.5 * noise(20_000)
    chance = difference.sigmoid()
    labels = (torch.rand(20_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) < chance).double()
    index = torch.arange(20_000)
    _, metrics = objectives.bradley_terry_loss(
        torch.cat([difference, torch.zeros(20_000)]), index, index + 20_000, labels, group=index
    )
    ceiling = torch.maximum(chance, 1 - chance).mean().item()
    assert metrics.preference_accuracy is not None
    assert metrics.preference_accuracy.item() == pytest.approx(ceiling, abs=0.01)


# Plackett-Luce


@pytest.mark.parametrize(("ranking", "loss"), [((2, 1, 0), 0.720868), ((2, 1, 0.5, -1), 1.251552)])
def test_plackett_luce_numbers(ranking: tuple[float, ...], loss: float) -> None:
    assert objectives.plackett_luce_nll(numbers(*ranking)).item() == pytest.approx(loss, abs=1e-6)


def test_plackett_luce_of_two_is_bradley_terry() -> None:
    scores = noise(5, 2)
    found = objectives.plackett_luce_nll(scores)
    assert found.tolist() == pytest.approx([one_pair(float(a - b)) for a, b in scores], abs=1e-12)


def test_plackett_luce_is_a_distribution_over_orders() -> None:
    scores = noise(4)
    orders = torch.stack([scores[list(order)] for order in permutations(range(4))])
    assert (-objectives.plackett_luce_nll(orders)).exp().sum().item() == pytest.approx(1)


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first": torch.tensor([], dtype=torch.long)}, "second must have the shape"),
        ({"second": torch.tensor([0, 2, 2])}, "pair 0 compares a response with itself"),
        ({"target": torch.tensor([1.0, 1.5, 0.0])}, "target must lie between 0 and 1"),
        ({"target": torch.full((3,), float("nan"))}, "target must lie between 0 and 1"),
        ({"margin": torch.tensor([1.0, -1.0, 0.0])}, "margin must not be negative"),
        ({"label_smoothing": 0.5}, "label_smoothing must be"),
        ({"centering": -1.0}, "centering must not be negative"),
        ({"group_count": 0}, "group_count is 0, but 1 rankings"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    batch: dict[str, Any] = {**ranked([2, 1, 0]), **change}
    with pytest.raises(ValueError, match=message):
        objectives.bradley_terry_loss(**batch)


def test_no_pair_is_an_error() -> None:
    none = torch.tensor([], dtype=torch.long)
    with pytest.raises(ValueError, match="there is no pair"):
        objectives.bradley_terry_loss(numbers(1.0), none, none, none.double(), group=none)
    with pytest.raises(ValueError, match="at least two scores"):
        objectives.plackett_luce_nll(numbers(1.0))
