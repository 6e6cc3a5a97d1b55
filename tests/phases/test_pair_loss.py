"""How settings enter the loss of a reward model's step, and its metrics, by hand."""

import math
from typing import Any

import pytest
import torch

from triphase.phases.pair_loss import PairLoss, pair_loss
from triphase.records.types import Pair
from triphase.settings.phases import OptimizerSettings, RewardSettings
from triphase.tokens.encoding import EncodedGroup

GROUPS = [EncodedGroup((8,), ((9, 1), (10, 1)))] * 2
PAIRS = [[Pair(0, 1, 1.0, 0.5)], [Pair(0, 1, 0.0, 0.25)]]  # differences 2 and 0.5; less the margins 1.5 and 0.75
SCORES = torch.tensor([1.0, -1.0, 0.5, 0.0], dtype=torch.float64)


def loss(counts: list[int] | None = None, **changes: Any) -> PairLoss:
    """Of two of the four rankings of a step."""
    settings = RewardSettings(**{"centering": 0.0, "optimizer": OptimizerSettings(learning_rate=1e-3), **changes})
    return pair_loss(SCORES, GROUPS, PAIRS, settings, 4, counts)


def chance(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def forward(x: float) -> float:
    return math.log(0.8 * chance(x) + 0.2 * chance(-x))


def unbiased(x: float) -> float:
    return (0.8 * math.log(chance(x)) - 0.2 * math.log(chance(-x))) / 0.6


def smoothed(x: float) -> float:
    return 0.9 * math.log(chance(x)) + 0.1 * math.log(chance(-x))


@pytest.mark.parametrize(
    ("changes", "likelihood", "beside"),
    [
        ({}, lambda x: math.log(chance(x)), 0.0),
        ({"label_smoothing": 0.1}, smoothed, 0.0),
        ({"flip_rate": 0.2}, forward, 0.0),
        ({"flip_rate": 0.2, "flip_correction": "unbiased"}, unbiased, 0.0),
        ({"centering": 0.3}, lambda x: math.log(chance(x)), 0.3 * 0.5**2),  # the sums of scores are 0 and 0.5
    ],
)
def test_every_setting_enters_the_objective_and_none_the_loss_that_is_told(
    changes: dict[str, Any], likelihood: object, beside: float
) -> None:
    found = loss(**changes)
    assert callable(likelihood)
    assert float(found.objective) == pytest.approx((-likelihood(1.5) - likelihood(-0.75) + beside) / 4, abs=1e-9)
    assert found.nll == pytest.approx((-math.log(chance(2)) - math.log(chance(-0.5))) / 4, abs=1e-9)
    assert (found.correct, found.decided) == (1.0, 2)


def test_a_ranking_that_counts_twice_weighs_twice_and_one_that_does_not_weighs_nothing() -> None:
    found = loss([2, 0])
    assert float(found.objective) == pytest.approx(-2 * math.log(chance(1.5)) / 4, abs=1e-9)
    assert (found.correct, found.decided) == (2.0, 2)
