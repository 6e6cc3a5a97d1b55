"""Advantages without a critic: the return of the whole response minus a baseline from other responses.

A response is one action here: each of its tokens gets the same advantage, the sum of the token rewards (the KL penalty
of every token, and the score) minus the baseline. At the optimum π* ∝ π_ref·exp(score/β) every response to a prompt has
the same return, β·log Z, so all three advantages are 0 there. The return from each token on would not have that
property.
"""

import torch
from torch import Tensor

from triphase.objectives.advantages import Advantages
from triphase.objectives.masking import at_least_float32
from triphase.objectives.shapes import require_constant, require_response_prefix, require_shapes

_ROUNDING = 4 * torch.finfo(torch.float32).eps
_NO_SPREAD = 1e-5
"""Deviation, as a share of that of all responses, under which the returns of a group differ by rounding alone."""


def leave_one_out_advantages(token_rewards: Tensor, mask: Tensor, groups: Tensor) -> Advantages:
    """REINFORCE with a leave-one-out baseline (RLOO).

        G_i = Σ_t R_{i,t},   Â_{i,t} = G_i - (1/(K-1)) · Σ_{j≠i, same prompt} G_j

    The baseline does not depend on response i, so the policy gradient keeps its expectation.

    Args:
        token_rewards: (B, R).
        mask: (B, R) bool, True on the response tokens, right-padded.
        groups: (B,) int64, the number of each response's prompt; responses to one prompt need not be adjacent.

    Returns:
        Advantages, each (B, R) float32 or float64; ``returns`` is G_i at each token.

    Raises:
        ValueError: shapes do not fit, the mask is no right-padded response mask, an input requires a gradient, groups
            is not int64, or a prompt has a single response.

    Source: Ahmadian et al. (arXiv 2402.14740), Eq. 8, with the KL penalty inside the return.
    """
    returns, centered, same = _grouped(token_rewards, mask, groups)
    counts = same.sum(1)
    _require_company(counts, groups)
    return _at_each_token(centered * counts / (counts - 1), returns, token_rewards, mask)


def group_standardized_advantages(token_rewards: Tensor, mask: Tensor, groups: Tensor) -> Advantages:
    """The group-relative advantage of GRPO: standardized over the responses to a prompt.

        Â_{i,t} = (G_i - mean_g(G)) / std_g(G),   G_i = Σ_t R_{i,t},   g: the responses to the prompt of i

    std is the population's (divided by K). A group whose returns differ by rounding alone gets 0.

    The division weights each prompt by 1/std, so this is not an unbiased gradient of the expected return. It ends at
    the same optimum, since the return that it standardizes includes the KL penalty.

    Args, returns and errors as in :func:`leave_one_out_advantages`.

    Source: Shao et al. (arXiv 2402.03300), §4.1.2, outcome supervision. Departures: the KL penalty is part of the
    return (in the paper: k3 as a term of the loss, next to standardized scores, so that the penalty's weight depends on
    their spread); nothing is added to std; and the policy loss averages over the tokens of the minibatch (in the paper:
    first over each response's own, which favors short ones where the advantage is positive, and long ones where it is
    negative).
    """
    returns, centered, same = _grouped(token_rewards, mask, groups)
    counts = same.sum(1)
    _require_company(counts, groups)
    deviation = ((same.double() @ centered.square()) / counts).sqrt()
    largest = torch.where(same, returns.abs()[None, :], 0).amax(1)
    least = torch.maximum(_ROUNDING * largest, _NO_SPREAD * returns.std(correction=0))
    standardized = torch.where(deviation > least, centered / deviation, 0)
    return _at_each_token(standardized, returns, token_rewards, mask)


def batch_mean_advantages(token_rewards: Tensor, mask: Tensor) -> Advantages:
    """REINFORCE with the mean return of the rollout as baseline.

        Â_{i,t} = G_i - (1/B) · Σ_j G_j,   G_i = Σ_t R_{i,t}

    The mean includes the response itself, so every advantage is (B-1)/B of the one with the mean of the others: a
    different step length, the same direction.

    Args, returns and errors as in :func:`leave_one_out_advantages`, with no groups; a rollout of one response has the
    advantage 0.

    Source: Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning"
    (1992), §3.
    """
    everyone = torch.zeros(len(token_rewards), dtype=torch.int64, device=token_rewards.device)
    returns, centered, _ = _grouped(token_rewards, mask, everyone)
    return _at_each_token(centered, returns, token_rewards, mask)


def _grouped(token_rewards: Tensor, mask: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B,) float64 returns, the returns minus their group's mean, and (B, B) whether two responses share a group."""
    require_shapes(token_rewards=(token_rewards, "B R"), mask=(mask, "B R"), groups=(groups, "B"))
    require_response_prefix(mask)
    require_constant(token_rewards=token_rewards)
    if groups.dtype != torch.int64:
        raise ValueError(f"groups must be int64, the number of each response's prompt; it is {groups.dtype}")
    returns = torch.where(mask, token_rewards.double(), 0).sum(1)
    same = groups[:, None] == groups[None, :]
    pivot = torch.where(same, returns[None, :], -torch.inf).amax(1)  # so that equal returns are 0 without rounding
    shifted = returns - pivot
    weights = same.double()
    return returns, shifted - (weights @ shifted) / weights.sum(1), same


def _require_company(counts: Tensor, groups: Tensor) -> None:
    if int(counts.min()) < 2:
        alone = int(groups[counts.argmin()])
        raise ValueError(f"each prompt needs at least two responses to compare; prompt {alone} has one")


def _at_each_token(advantages: Tensor, returns: Tensor, token_rewards: Tensor, mask: Tensor) -> Advantages:
    dtype = at_least_float32(token_rewards).dtype
    columns = (torch.where(mask, each[:, None], 0).to(dtype) for each in (advantages, returns))
    return Advantages(*columns)
