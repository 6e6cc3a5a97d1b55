"""How much of a score is explained by length."""

import torch
from torch import Tensor

from triphase.objectives.masking import at_least_float32
from triphase.objectives.shapes import require_shapes


def within_group_slope(scores: Tensor, lengths: Tensor, group: Tensor) -> float | None:
    """The effect of one more token on the score: least squares with an intercept for each prompt.

        b = Σ_i (l_i - l̄_g)(r_i - r̄_g) / Σ_i (l_i - l̄_g)²        means over the responses of i's own prompt

    Between prompts length and score may be correlated for good reason (a long question needs a long answer); within a
    prompt the correlation is what a policy can exploit by writing more.

    Args:
        scores: (N,) r.
        lengths: (N,) l, in tokens.
        group: (N,) int64, the prompt of each; any numbers.

    Returns:
        b; None if no prompt has responses of two lengths.

    Raises:
        ValueError: shapes do not fit.

    Source: the within estimator of panel data; residual rewards as in Shen et al. (arXiv 2310.05199) and Singhal et al.
    (arXiv 2310.03716), Sec. 5.
    """
    require_shapes(scores=(scores, "N"), lengths=(lengths, "N"), group=(group, "N"))
    off, scored = centered_within(lengths, group), centered_within(scores, group)
    total = float(off.square().sum())
    return float((off * scored).sum()) / total if total > 0 else None


def within_group_correlation(scores: Tensor, lengths: Tensor, group: Tensor) -> Tensor | None:
    """The correlation of score and length among the responses to one prompt; gradients flow to the scores.

        rho = Σ_i (l_i - l̄_g)(r_i - r̄_g) / √( Σ_i (l_i - l̄_g)² · Σ_i (r_i - r̄_g)² )

    Args:
        scores: (N,) r.
        lengths: (N,) l.
        group: (N,) int64, the prompt of each; any numbers.

    Returns:
        () rho; None where scores or lengths do not differ within any group.

    Raises:
        ValueError: shapes do not fit.

    Source: the correlation whose size Chen et al. (arXiv 2402.07319) penalize, taken within prompts.
    """
    require_shapes(scores=(scores, "N"), lengths=(lengths, "N"), group=(group, "N"))
    off, scored = centered_within(lengths, group), centered_within(scores, group)
    total = off.square().sum() * scored.square().sum()
    correlation: Tensor = (off * scored).sum() / total.sqrt()
    return correlation if float(total.detach()) > 0 else None


def centered_within(values: Tensor, group: Tensor) -> Tensor:
    """(N,) float64: each value minus the mean of its group's, (N,) int64."""
    require_shapes(values=(values, "N"), group=(group, "N"))
    _, place, counts = torch.unique(group, return_inverse=True, return_counts=True)
    values = at_least_float32(values).double()
    sums = torch.zeros(len(counts), dtype=torch.float64, device=values.device).index_add(0, place, values)
    means: Tensor = sums / counts
    return values - means[place]
