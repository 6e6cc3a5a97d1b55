"""One PPO update of one action, number by number, each computed by the functions that training uses."""

from dataclasses import dataclass

import torch

from triphase.objectives.advantages import generalized_advantages
from triphase.objectives.proximal import clipped_policy_loss, clipped_value_loss


@dataclass(frozen=True, slots=True)
class WorkedStep:
    """The numbers of one update. ``gradient`` is that of the objective by the log-probability of the action."""

    advantage: float
    ratio: float
    unclipped: float
    limited_ratio: float
    clipped: float
    objective: float
    gradient: float
    value_loss: float

    @property
    def is_clipped(self) -> bool:
        return self.clipped < self.unclipped


def worked_step(
    *,
    reward: float,
    value: float,
    next_value: float,
    discount: float,
    probability_old: float,
    probability_new: float,
    clip_range: float,
) -> WorkedStep:
    """Advantage, ratio and clipped objective of one action.

    The state after the action is worth ``next_value``; 0 where the episode ends there.
    """

    def row(*numbers: float) -> torch.Tensor:
        return torch.tensor([numbers], dtype=torch.float64)

    mask = torch.tensor([[True]])
    # The next state is a second token without reward; with λ = 0 the advantage is δ = R + γ·V' − V alone.
    estimate = generalized_advantages(
        row(reward, 0.0), row(value, next_value), mask.expand(1, 2), discount=discount, gae_lambda=0.0
    )
    advantages, returns = estimate.advantages[:, :1], estimate.returns[:, :1]
    logprobs = row(probability_new).log().requires_grad_()
    loss, metrics = clipped_policy_loss(logprobs, row(probability_old).log(), advantages, mask, clip_range=clip_range)
    value_loss, _ = clipped_value_loss(row(value), row(value), returns, mask, clip_range=None)
    loss.backward()  # type: ignore[no-untyped-call]
    advantage, ratio = advantages.item(), metrics.ratio_mean.item()
    limited = min(max(ratio, 1 - clip_range), 1 + clip_range)
    return WorkedStep(
        advantage=advantage,
        ratio=ratio,
        unclipped=ratio * advantage,
        limited_ratio=limited,
        clipped=limited * advantage,
        objective=-loss.item(),
        gradient=0.0 if logprobs.grad is None else -logprobs.grad.item(),
        value_loss=value_loss.item(),
    )
