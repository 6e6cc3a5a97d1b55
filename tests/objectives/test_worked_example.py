"""The crossroads: action "right" had probability .60 and now has .75; value 1.5, reward +5, then the end."""

import pytest
import torch

from triphase import objectives

MASK = torch.ones(1, 1, dtype=torch.bool)


def test_the_worked_example() -> None:
    advantages = objectives.generalized_advantages(
        torch.tensor([[5.0]]), torch.tensor([[1.5]]), MASK, discount=0.9, gae_lambda=0.95
    ).advantages
    assert advantages.item() == pytest.approx(3.5)

    logprobs, rollout_logprobs = torch.tensor([[0.75]]).log(), torch.tensor([[0.60]]).log()
    unclipped, metrics = objectives.clipped_policy_loss(logprobs, rollout_logprobs, advantages, MASK, clip_range=0.9)
    assert metrics.ratio_mean.item() == pytest.approx(1.25)
    assert metrics.clip_fraction.item() == 0
    assert -unclipped.item() == pytest.approx(4.375)

    clipped, metrics = objectives.clipped_policy_loss(logprobs, rollout_logprobs, advantages, MASK, clip_range=0.2)
    assert -clipped.item() == pytest.approx(4.2)
    assert metrics.clip_fraction.item() == 1
