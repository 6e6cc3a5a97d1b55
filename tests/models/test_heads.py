"""How the two scalar heads begin, and what calibration does to the score."""

import math

import pytest
import torch
from tests.small import shared_model

from triphase.batches.order import generator
from triphase.models.heads import ScoreHead, ValueHead


def test_the_critic_begins_at_0_everywhere() -> None:
    head = ValueHead(16)
    assert torch.equal(head(torch.randn(3, 5, 16)), torch.zeros(3, 5))
    assert all(not parameter.any() for parameter in head.parameters())


def test_the_score_head_begins_normal_with_variance_one_over_width_plus_one() -> None:
    width = 4096
    head = ScoreHead(width, generator(0, "score-head"))
    weight = head.linear.weight.detach()
    assert weight.shape == (1, width)
    assert float(weight.mean()) == pytest.approx(0, abs=4 / math.sqrt(width * (width + 1)))
    assert float(weight.std()) * math.sqrt(width + 1) == pytest.approx(1, abs=0.05)
    assert head.linear.bias.tolist() == [0]


def test_its_start_follows_from_the_runs_seed_and_from_nothing_else() -> None:
    def weight(seed: int) -> torch.Tensor:
        torch.rand(seed + 1)
        return shared_model(seed=seed).score_head.linear.weight

    assert torch.equal(weight(3), weight(3))
    assert not torch.equal(weight(3), weight(4))


def test_heads_count_in_float32_whatever_the_base_does() -> None:
    for head in (ValueHead(8), ScoreHead(8, generator(0))):
        assert head(torch.randn(2, 8, dtype=torch.bfloat16)).dtype == torch.float32


def test_calibration_is_the_score_minus_mean_over_deviation() -> None:
    head = ScoreHead(8, generator(0))
    with torch.no_grad():
        head.linear.bias.fill_(0.3)
    hidden = torch.randn(50, 8)
    before = head(hidden).detach()
    head.calibrate(1.25, 2.5)
    assert torch.allclose(head(hidden), (before - 1.25) / 2.5, atol=1e-6)
    order = before.argsort()
    assert torch.equal(head(hidden).argsort(), order)
