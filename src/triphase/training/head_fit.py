"""Fitting a linear score to comparisons on fixed features: a convex problem, solved to convergence."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from triphase.batches.order import permutation
from triphase.batches.transfers import to_device
from triphase.objectives.length import centered_within
from triphase.objectives.preference import bradley_terry_loss

_ITERATIONS = 100
# Deviations below this share of their mean count as this share.
_FLOOR = 0.1
FOLDS = 5
"""Parts of the prompts; each is evaluated by fits to the others."""
PENALTIES = tuple(10 ** (exponent / 4) for exponent in range(8, -13, -1))
"""The penalties that cross-validation tries: 100 to 0.001, four per factor of ten, the strongest first."""
UNCHOSEN = 1.0
"""The penalty if nothing can be left out for validation."""


@dataclass(frozen=True, slots=True)
class StackedPairs:
    """P pairs of several groups.

    Attributes:
        first, second: (P,) indices of the two responses. target: (P,) probability that the first is preferred.
        margin: (P,) how far apart the scores should be. group: (P,) the ranking of the pair.
    """

    first: Tensor
    second: Tensor
    target: Tensor
    margin: Tensor
    group: Tensor

    def to(self, device: torch.device) -> "StackedPairs":
        """The same on another device."""
        return StackedPairs(*(to_device(getattr(self, name), device) for name in self.__slots__))

    def where(self, kept: Tensor) -> "StackedPairs":
        """The pairs for which ``kept``, (P,) bool, is true."""
        return StackedPairs(*(getattr(self, name)[kept] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class PenaltyChoice:
    """The penalty with the lowest cross-validated loss, and its loss curve.

    Attributes:
        curve: (penalty, loss in nats per pair on the prompts that were left out) for each penalty that was tried; empty
            if a single prompt leaves nothing to validate on.
    """

    penalty: float
    curve: tuple[tuple[float, float], ...]

    @property
    def loss(self) -> float | None:
        """The cross-validated loss of the chosen penalty; None without a curve."""
        return dict(self.curve).get(self.penalty)


@dataclass(frozen=True, slots=True)
class Flips:
    """How often labels are flipped, and how that is corrected (`bradley_terry_loss`)."""

    rate: float = 0.0
    correction: str = "forward"


NO_FLIPS = Flips()


def fit_linear_scores(
    features: Tensor, pairs: StackedPairs, *, penalty: float, flips: Flips = NO_FLIPS
) -> tuple[Tensor, float]:
    """The weight w of the score w·x + b that fits the comparisons best; b brings the mean score to 0.

        min_w  Bradley-Terry loss of the scores w·x  +  penalty·|w·std(x)|²

    Features are standardized for the fit, so the penalty treats them alike, and the result is converted back to the
    original features. Solved by L-BFGS in float64 from w = 0: the same result whatever the start (under the forward
    correction of flips, which is not convex, the optimum found from there).

    Args:
        features: (N, d), without gradient.
        penalty: above 0; a higher one keeps the weights smaller if comparisons are few or noisy.

    Returns:
        (d,) float32 w, and b.

    Source: linear probing before fine-tuning, Kumar et al. (arXiv 2202.10054).
    """
    x, mean, deviation = _standardized(features)
    found = _solve(x, pairs, penalty, torch.zeros(x.shape[1], dtype=torch.float64), flips) / deviation
    return found.float(), -float(found @ mean)


def fit_lengths(features: Tensor, lengths: Tensor, group: Tensor, *, penalty: float) -> Tensor | None:
    """The weight w of the linear map w·x that best predicts the length among responses to one prompt.

        min_w  mean_i (x̃_i·w - l̃_i/σ)²  +  penalty·|w·std(x)|²        ~: minus the mean of the prompt; σ of l̃

    Args:
        features: (N, d), without gradient.
        lengths: (N,) in tokens. group: (N,) int64, the prompt of each.
        penalty: as in `fit_linear_scores`.

    Returns:
        (d,) float32; None if no prompt has responses of two lengths.
    """
    x, _, deviation = _standardized(features)
    off = centered_within(lengths, group)
    scale = off.square().mean().sqrt()
    if not scale > 0:
        return None
    within = torch.stack([centered_within(column, group) for column in x.T], 1)
    normal = within.T @ within / len(x) + penalty * torch.eye(x.shape[1], dtype=torch.float64)
    found: Tensor = torch.linalg.solve(normal, within.T @ (off / scale) / len(x)) / deviation
    return found.float()


def fit_count(prompts: Sequence[Hashable]) -> int:
    """How many fits `choose_penalty` makes for rankings of these prompts."""
    distinct = len(set(prompts))
    return min(FOLDS, distinct) * len(PENALTIES) if distinct > 1 else 0


def choose_penalty(
    features: Tensor,
    pairs: StackedPairs,
    prompts: Sequence[Hashable],
    *,
    seed: int,
    flips: Flips = NO_FLIPS,
    on_fit: Callable[[], None] = lambda: None,
) -> PenaltyChoice:
    """The penalty of `fit_linear_scores` by cross-validation over prompts.

        argmin over PENALTIES of  (1/G) Σ_rankings  mean over its pairs of [ -t·log σ(Δ) - (1 - t)·log σ(-Δ) ]

    where Δ comes from a fit to the other folds. All rankings of a prompt are in one of FOLDS folds (fewer if there are
    fewer prompts). The features are standardized over all rows, which reveals no label to the fits. Of equal losses the
    stronger penalty is taken. Each fit starts from that of the next stronger penalty.

    Args:
        features: (N, d), without gradient.
        prompts: identifies the prompt of each ranking, by the numbers in ``pairs.group``.
        on_fit: called after each of the `fit_count` fits.
    """
    fold_of = folds_of(prompts, seed=seed)
    if not fold_of:
        return PenaltyChoice(UNCHOSEN, ())
    fold = _fold_of_each(pairs, prompts, fold_of)
    x, _, _ = _standardized(features)
    totals = dict.fromkeys(PENALTIES, 0.0)
    for number in sorted(set(fold_of.values())):
        others, left_out = pairs.where(fold != number), pairs.where(fold == number)
        weight = torch.zeros(x.shape[1], dtype=torch.float64)
        for penalty in PENALTIES:
            weight = _solve(x, others, penalty, weight, flips)
            totals[penalty] += float(_loss(x @ weight, left_out, flips, margins=False)) * _rankings(left_out)
            on_fit()
    curve = tuple((penalty, total / _rankings(pairs)) for penalty, total in totals.items())
    return PenaltyChoice(min(curve, key=lambda point: point[1])[0], curve)


def cross_fits(
    features: Tensor,
    pairs: StackedPairs,
    prompts: Sequence[Hashable],
    *,
    penalty: float,
    seed: int,
    flips: Flips = NO_FLIPS,
) -> list[tuple[Tensor, float]]:
    """For each fold of `folds_of`, the fit of `fit_linear_scores` to the other folds; empty if there are no folds."""
    fold_of = folds_of(prompts, seed=seed)
    if not fold_of:
        return []
    fold = _fold_of_each(pairs, prompts, fold_of)
    return [
        fit_linear_scores(features, pairs.where(fold != number), penalty=penalty, flips=flips)
        for number in sorted(set(fold_of.values()))
    ]


def folds_of(prompts: Sequence[Hashable], *, seed: int) -> dict[Hashable, int]:
    """The fold of each prompt: FOLDS parts, or as many as there are prompts; empty for a single prompt."""
    distinct = list(dict.fromkeys(prompts))
    if len(distinct) < 2:
        return {}
    folds = min(FOLDS, len(distinct))
    return dict(
        zip(distinct, (place % folds for place in permutation(len(distinct), seed, "reward", "folds")), strict=True)
    )


def _fold_of_each(pairs: StackedPairs, prompts: Sequence[Hashable], fold_of: Mapping[Hashable, int]) -> Tensor:
    """(P,) the fold of each pair."""
    return torch.tensor([fold_of[prompt] for prompt in prompts])[pairs.group]


def _rankings(pairs: StackedPairs) -> int:
    return len(set(pairs.group.tolist()))


def _standardized(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The features at mean 0 and standard deviation 1 in float64, the means, and the deviations."""
    x = features.double()
    deviation = x.std(0, unbiased=False)
    # A feature that hardly varies would get an unbounded weight, and ruin the score once it moves in training.
    deviation = deviation.clamp(min=float(deviation.mean()) * _FLOOR + 1e-12)
    mean = x.mean(0)
    return (x - mean) / deviation, mean, deviation


def _solve(x: Tensor, pairs: StackedPairs, penalty: float, start: Tensor, flips: Flips) -> Tensor:
    """The weight of the best fit, from a start that affects the path and not the result."""
    weight = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weight], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        objective = _loss(x @ weight, pairs, flips, margins=True) + penalty * weight.pow(2).sum()
        objective.backward()  # type: ignore[no-untyped-call]
        return objective

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach()


def _loss(scores: Tensor, pairs: StackedPairs, flips: Flips, *, margins: bool) -> Tensor:
    margin = pairs.margin.double() if margins else None
    target = pairs.target.double()
    loss, _ = bradley_terry_loss(
        scores,
        pairs.first,
        pairs.second,
        target,
        group=pairs.group,
        margin=margin,
        flip_rate=flips.rate,
        flip_correction=flips.correction,
    )
    return loss
