"""The two scalar heads: the critic's and the reward model's. Each is one linear map in float32, outside the base."""

import math

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """V_ψ(s_t): one number for each position, from the policy's hidden state. Starts at 0 (Ziegler et al. 2019)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, d) → (…)."""
        values: Tensor = self.linear(hidden.float()).squeeze(-1)
        return values


class ScoreHead(nn.Module):
    """r_θ(x, y): one number for a response, from the hidden state of its last token.

    Starts at N(0, 1/√(d+1)), bias 0 (Stiennon et al. 2020). ``calibrate`` afterwards moves the scale and the offset
    so that reference samples have mean 0 and standard deviation 1: only differences of the score mean anything.
    """

    def __init__(self, hidden_size: int, random: torch.Generator) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1)
        weight = torch.randn(1, hidden_size, generator=random) / math.sqrt(hidden_size + 1)
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            self.linear.bias.zero_()

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, d) → (…)."""
        scores: Tensor = self.linear(hidden.float()).squeeze(-1)
        return scores

    @torch.no_grad()
    def set(self, weight: Tensor, bias: float) -> None:
        """Copy a fitted (d,) weight and its bias into the head."""
        self.linear.weight.copy_(weight[None])
        self.linear.bias.fill_(bias)

    @torch.no_grad()
    def calibrate(self, mean: float, standard_deviation: float) -> None:
        """Fold (score − mean) / standard deviation into the weights."""
        self.linear.weight.div_(standard_deviation)
        self.linear.bias.sub_(mean).div_(standard_deviation)
