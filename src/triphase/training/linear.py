"""Fitting a linear score to comparisons on features that do not change: a convex problem, solved whole."""

from dataclasses import dataclass

import torch
from torch import Tensor

from triphase.objectives.preference import bradley_terry_loss

_ITERATIONS = 100
# Deviations under this share of their mean count as this share.
_FLOOR = 0.1


@dataclass(frozen=True, slots=True)
class StackedPairs:
    """P pairs of several groups.

    Attributes:
        first, second: (P,) indices of the two responses. target: (P,) probability that the first is preferred.
        margin: (P,) how far apart the scores should be. group: (P,) the ranking that the pair is of.
    """

    first: Tensor
    second: Tensor
    target: Tensor
    margin: Tensor
    group: Tensor

    def to(self, device: torch.device) -> "StackedPairs":
        """The same on another device."""
        return StackedPairs(*(getattr(self, name).to(device) for name in self.__slots__))


def fit_linear_scores(features: Tensor, pairs: StackedPairs, *, penalty: float) -> tuple[Tensor, float]:
    """The weight w of the score w·x + b that fits the comparisons best; b brings the mean score to 0.

        min_w  Bradley-Terry loss of the scores w·x  +  penalty·|w·std(x)|²

    Features are standardised for the fit, so the penalty treats them alike, and the answer is given for them as they
    came. Solved by L-BFGS in float64 from w = 0: the same answer whatever the start.

    Args:
        features: (N, d), without gradient.
        penalty: above 0; more keeps the weights smaller where comparisons are few or noisy.

    Returns:
        (d,) float32 w, and b.

    Source: linear probing before fine-tuning, Kumar et al. (arXiv 2202.10054).
    """
    x = features.double()
    deviation = x.std(0, unbiased=False)
    # A feature that hardly varies would get a weight without measure, and wreck the score once it moves in training.
    deviation = deviation.clamp(min=float(deviation.mean()) * _FLOOR + 1e-12)
    mean = x.mean(0)
    x = (x - mean) / deviation
    weight = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss, _ = bradley_terry_loss(
            x @ weight,
            pairs.first,
            pairs.second,
            pairs.target.double(),
            group=pairs.group,
            margin=pairs.margin.double(),
        )
        objective = loss + penalty * weight.pow(2).sum()
        objective.backward()  # type: ignore[no-untyped-call]
        return objective

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    found = weight.detach() / deviation
    return found.float(), -float(found @ mean)
