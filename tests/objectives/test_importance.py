"""Truncated importance weights: by hand, against a slow loop, and what they do to the surrogate."""

import math

import pytest
import torch

from triphase.objectives.importance import truncated_importance_weights
from triphase.objectives.proximal import clipped_policy_loss

MASK = torch.tensor([[True, True, False], [True, True, True]])


def test_by_hand() -> None:
    ours = torch.tensor([[-1.0, -2.0, 5.0], [-1.0, -1.0, -1.0]])
    theirs = torch.tensor([[-1.0, -2.5, -9.0], [-2.0, -0.5, -40.0]])
    found = truncated_importance_weights(ours, theirs, MASK, limit=2.0)
    expected = [[1.0, math.exp(0.5), 1.0], [2.0, math.exp(-0.5), 2.0]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_a_weighed_advantage_is_a_weighed_surrogate() -> None:
    draw = torch.Generator().manual_seed(0)
    logprobs, old, theirs, advantages = (torch.randn(2, 3, generator=draw, dtype=torch.float64) for _ in range(4))
    weights = truncated_importance_weights(old, theirs, MASK, limit=1.5)
    loss, _ = clipped_policy_loss(logprobs, old, advantages * weights, MASK, clip_range=0.2)
    slow = 0.0
    for row, place in MASK.nonzero().tolist():
        ratio = math.exp(logprobs[row, place] - old[row, place])
        weight = min(math.exp(old[row, place] - theirs[row, place]), 1.5)
        advantage = float(advantages[row, place])
        slow -= weight * min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage) / 5
    assert float(loss) == pytest.approx(slow, abs=1e-12)


def test_what_cannot_be_is_refused() -> None:
    numbers = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="limit"):
        truncated_importance_weights(numbers, numbers, MASK, limit=0.0)
    with pytest.raises(ValueError, match=r"logprobs.*shape|shape.*logprobs"):
        truncated_importance_weights(numbers, numbers[:, :2], MASK, limit=1.0)
