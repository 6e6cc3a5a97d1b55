"""The loss of a microbatch of rankings, and its metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from triphase.objectives.preference import bradley_terry_loss
from triphase.records.types import Pair
from triphase.settings.phases import RewardSettings
from triphase.tokens.encoding import EncodedGroup
from triphase.training.head_fit import StackedPairs


@dataclass(frozen=True, slots=True)
class PairLoss:
    """The part of a step's loss that comes from some of its rankings.

    Attributes:
        objective: () the minimized loss: with margins, label smoothing and centering.
        nll: the plain Bradley–Terry loss of the same pairs, in nats per pair.
        scores: (N,) without gradient.
        correct, decided: pairs in the labeled order (equal scores count ½), out of those that are not ties.
    """

    objective: Tensor
    nll: float
    scores: Tensor
    correct: float
    decided: int

    def sums(self) -> dict[str, float]:
        """What is added up over the microbatches of a step, and over processes."""
        loss = float(self.objective.detach())
        return {"loss": loss, "nll": self.nll, "correct": self.correct, "decided": float(self.decided)}


def pair_loss(
    scores: Tensor,
    groups: Sequence[EncodedGroup],
    pairs: Sequence[Sequence[Pair]],
    settings: RewardSettings,
    group_count: int,
    counts: Sequence[int] | None = None,
) -> PairLoss:
    """The loss of the (N,) scores of all responses of these groups; ``group_count`` rankings make up the step.

    ``counts`` is the multiplicity of each group, 1 by default. There are few scores, and each pair is inspected, so
    this runs on the CPU, with one synchronization with a GPU.
    """
    scores, stacked = scores.cpu(), stack_pairs(groups, pairs, counts)
    at = (stacked.first, stacked.second, stacked.target)
    objective, metrics = bradley_terry_loss(
        scores,
        *at,
        group=stacked.group,
        margin=stacked.margin,
        label_smoothing=settings.label_smoothing,
        centering=settings.centering,
        flip_rate=settings.flip_rate,
        flip_correction=settings.flip_correction,
        group_count=group_count,
    )
    nll, _ = bradley_terry_loss(scores.detach(), *at, group=stacked.group, group_count=group_count)
    decided = metrics.decided_count
    correct = 0.0 if metrics.preference_accuracy is None else float(metrics.preference_accuracy) * decided
    return PairLoss(objective, float(nll), scores.detach(), correct, decided)


def stack_pairs(
    groups: Sequence[EncodedGroup], pairs: Sequence[Sequence[Pair]], counts: Sequence[int] | None = None
) -> StackedPairs:
    """The pairs of several groups, by index into all of their responses; a group that counts twice appears twice."""
    rows: list[tuple[int, int, float, float, int]] = []
    start, number = 0, 0
    for place, (group, members) in enumerate(zip(groups, pairs, strict=True)):
        for _ in range(1 if counts is None else counts[place]):
            rows += [(start + p.first, start + p.second, p.target, p.margin, number) for p in members]
            number += 1
        start += len(group.responses)
    return StackedPairs(*(torch.tensor(column) for column in zip(*rows, strict=True)))
