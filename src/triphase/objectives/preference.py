"""The loss of the reward model: rankings as pairs, with ties, soft labels, margins, smoothing and centering."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from triphase.objectives.masking import at_least_float32
from triphase.objectives.shapes import require_shapes


@dataclass(frozen=True, slots=True)
class PreferenceMetrics:
    """Metrics of the given pairs, all with the same weight.

    Attributes:
        preference_accuracy: () share of decided pairs whose scores are in the labeled order, equal scores as 0.5;
            None where every pair is a tie.
        margin_mean: () mean score of the preferred minus score of the other, over decided pairs; None likewise.
        score_deviation: () population standard deviation of all scores: near 0 the scorer distinguishes nothing,
            regardless of the loss.
        pair_count: pairs.
        decided_count: pairs whose target is not 0.5.
    """

    preference_accuracy: Tensor | None
    margin_mean: Tensor | None
    score_deviation: Tensor
    pair_count: int
    decided_count: int


def bradley_terry_loss(
    scores: Tensor,
    first: Tensor,
    second: Tensor,
    target: Tensor,
    *,
    group: Tensor,
    margin: Tensor | None = None,
    label_smoothing: float = 0.0,
    centering: float = 0.0,
    flip_rate: float = 0.0,
    flip_correction: str = "forward",
    group_count: int | None = None,
) -> tuple[Tensor, PreferenceMetrics]:
    """Bradley–Terry loss over all pairs of a ranking, averaged within the ranking, then over rankings.

        Δ = r_first - r_second
        D = Δ - (2t - 1)·m                     margin, towards the preferred
        t' = t·(1 - ε) + (1 - t)·ε             label smoothing: the label is flipped with probability ε
        ℓ = -t'·log σ(D) - (1 - t')·log σ(-D) + η·(r_first + r_second)²
        L = (1/G) · Σ_g (1/|g|) · Σ_{pairs of g} ℓ

    If labels are known to be flipped with probability ρ, log σ(D) is replaced by one of

        forward:   log[ (1 - ρ)·σ(D) + ρ·σ(-D) ]                              the likelihood of a flipped label
        unbiased:  [ (1 - ρ)·log σ(D) - ρ·log σ(-D) ] / (1 - 2ρ)              log σ(D) of the true label, on average

    and log σ(-D) by the same with -D. Under `forward` a label that the scores strongly contradict has no effect: its
    gradient vanishes, where that of log σ goes to 1. `unbiased` has no lower bound; it needs a penalty or few epochs.

    The margin is the expected signed one: m for t = 1, -m for t = 0, none for a tie, in between for a soft label. So
    swapping first and second (t → 1 - t) changes nothing, and for t of 0 or 1 it is Llama 2's. The best D is
    log(t'/(1 - t')).

    Args:
        scores: (N,) scores of all responses, each computed once.
        first: (P,) int64 index into scores.
        second: (P,) int64 index into scores, of another response.
        target: (P,) t, the probability that the first is preferred: 1, 0, 0.5 for a tie, or any soft label.
        group: (P,) int64, the ranking that each pair belongs to; any numbers. All pairs of a ranking must be in one
            call.
        margin: (P,) m, not negative; None is 0.
        label_smoothing: ε in [0, 0.5).
        centering: η, not negative; pulls scores towards 0, which the differences leave free.
        flip_rate: ρ in [0, 0.5).
        flip_correction: `forward` or `unbiased`; without effect at ρ = 0.
        group_count: G, the rankings of the whole optimizer step; None when they are all here.

    Raises:
        ValueError: shapes do not fit, no pair, a response paired with itself, or a number outside its range.

    Source: Ouyang et al. (arXiv 2203.02155), Eq. 1, all pairs of a ranking as one batch element; margin Touvron et
    al. (arXiv 2307.09288), Eq. 2; centering Eisenstein et al. (arXiv 2312.09244), Eq. 2; forward correction Patrini et
    al. (arXiv 1609.03683), Thm. 2; unbiased estimator Natarajan et al., "Learning with Noisy Labels" (2013), Lemma 1.
    Departures: ties count with target 0.5, where the first source drops them; the margin of ties and soft labels.
    """
    _require_pairs(scores, first, second, target, group, margin)
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be at least 0 and below 0.5; it is {label_smoothing}")
    if not centering >= 0:
        raise ValueError(f"centering must not be negative; it is {centering}")
    scores = at_least_float32(scores)
    target = target.to(scores.dtype)
    difference = scores[first] - scores[second]
    shifted = difference if margin is None else difference - (2 * target - 1) * margin
    smoothed = target * (1 - label_smoothing) + (1 - target) * label_smoothing
    first_wins, second_wins = (_log_likelihood(each, flip_rate, flip_correction) for each in (shifted, -shifted))
    losses = -smoothed * first_wins - (1 - smoothed) * second_wins
    if centering > 0:
        losses = losses + centering * (scores[first] + scores[second]).square()

    _, position, sizes = torch.unique(group, return_inverse=True, return_counts=True)
    groups_here = len(sizes)
    if group_count is not None and group_count < groups_here:
        raise ValueError(
            f"group_count is {group_count}, but {groups_here} rankings are here: "
            "it must be the number of rankings of the whole optimizer step"
        )
    loss = (losses / sizes[position]).sum() / (group_count or groups_here)
    return loss, _preference_metrics(scores.detach(), difference.detach(), target)


def _log_likelihood(difference: Tensor, flip_rate: float, correction: str) -> Tensor:
    """The replacement of log σ(D) if labels are flipped with probability ρ."""
    if not 0 <= flip_rate < 0.5:
        raise ValueError(f"flip_rate must be at least 0 and below 0.5; it is {flip_rate}")
    if correction not in ("forward", "unbiased"):
        raise ValueError(f"flip_correction must be forward or unbiased; it is {correction!r}")
    right = logsigmoid(difference)
    if flip_rate == 0:
        return right
    wrong = logsigmoid(-difference)
    if correction == "unbiased":
        return ((1 - flip_rate) * right - flip_rate * wrong) / (1 - 2 * flip_rate)
    return torch.logaddexp(right + math.log1p(-flip_rate), wrong + math.log(flip_rate))


def _require_pairs(
    scores: Tensor, first: Tensor, second: Tensor, target: Tensor, group: Tensor, margin: Tensor | None
) -> None:
    """Check shapes and contents of the pairs; raises ValueError naming the first error."""
    pairs = {"first": (first, "P"), "second": (second, "P"), "target": (target, "P"), "group": (group, "P")}
    if margin is not None:
        pairs["margin"] = (margin, "P")
    require_shapes(scores=(scores, "N"), **pairs)
    if len(first) == 0:
        raise ValueError("there is no pair: a ranking needs at least two responses")
    if bool((first == second).any()):
        raise ValueError(f"pair {int((first == second).nonzero()[0])} compares a response with itself")
    if not bool(((target >= 0) & (target <= 1)).all()):
        raise ValueError("target must lie between 0 and 1: it is the probability that the first is preferred")
    if margin is not None and not bool((margin >= 0).all()):
        raise ValueError("margin must not be negative: its direction comes from target")


def _preference_metrics(scores: Tensor, difference: Tensor, target: Tensor) -> PreferenceMetrics:
    decided = target != 0.5
    decided_count = int(decided.sum())
    accuracy = margin_mean = None
    if decided_count > 0:
        margins = (torch.sign(target - 0.5) * difference)[decided]
        accuracy = ((torch.sign(margins) + 1) / 2).mean()
        margin_mean = margins.mean()
    return PreferenceMetrics(accuracy, margin_mean, scores.std(correction=0), len(target), decided_count)


def plackett_luce_nll(scores: Tensor) -> Tensor:
    """Negative log-likelihood of a ranking under Plackett–Luce: the best is chosen first, then the best of the rest.

        -Σ_k [ r_k - log Σ_{j ≥ k} exp(r_j) ]

    For simulated labelers and tests; with K = 2 it is the Bradley–Terry loss.

    Args:
        scores: (..., K), best first.

    Returns:
        (...) float32, or float64 for float64 scores.

    Raises:
        ValueError: fewer than two scores.

    Source: Plackett, "The analysis of permutations" (1975).
    """
    if scores.dim() == 0 or scores.shape[-1] < 2:
        raise ValueError(
            f"a ranking needs at least two scores in its last dimension; the shape is {tuple(scores.shape)}"
        )
    scores = at_least_float32(scores)
    remaining = scores.flip(-1).logcumsumexp(-1).flip(-1)
    return (remaining - scores).sum(-1)
