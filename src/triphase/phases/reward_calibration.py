"""The scale of the reward model's score, which training leaves undetermined, from reference samples."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from triphase.errors import TrainingError
from triphase.models.members import Combination, Ensemble, LengthResidual, RewardMember
from triphase.models.roles import REWARD, SharedModel
from triphase.objectives.ensembles import member_deviation
from triphase.rewards.model import figures_of, score_samples
from triphase.settings.phases import AVERAGE, EnsembleSettings
from triphase.tokens.encoding import Encoded

_LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class Calibration:
    """The scores of reference samples before calibration: the mean that was subtracted and the divisor."""

    mean: float
    standard_deviation: float
    samples: int


def calibrate(
    shared: SharedModel,
    samples: Sequence[Encoded],
    *,
    max_tokens: int | None,
    member: RewardMember | None = None,
    on_scored: Callable[[int], None] = lambda count: None,
) -> Calibration:
    """Bring the score of a reward model (by default the run's) to mean 0 and standard deviation 1 on reference samples,
    by folding both into its head.

    ``on_scored`` is called with the number of samples that have just been scored.

    Raises:
        TrainingError: the scores do not differ, so the reward model has learned nothing.
    """
    chosen = member or RewardMember(REWARD, shared.score_head)
    by = partial(shared.scores_by, chosen)
    scores = figures_of(shared, samples, by, max_tokens=max_tokens, on_finished=on_scored)
    found = _calibration_of(scores)
    chosen.head.calibrate(found.mean, found.standard_deviation)
    return found


def join_members(
    shared: SharedModel,
    members: Sequence[RewardMember],
    settings: EnsembleSettings,
    samples: Sequence[Encoded],
    *,
    max_tokens: int | None,
    on_scored: Callable[[int], None] = lambda count: None,
) -> Calibration:
    """Make the members the reward model of ``shared``: each calibrated, then their combined score.

    Returns the conversion of the score back to the unit in which the members were trained, on average.

    Raises:
        TrainingError: the scores of one of them do not differ.
    """
    how = Combination("mean" if settings.combine == AVERAGE else settings.combine, settings.penalty)
    shared.ensemble = Ensemble(tuple(members), how)
    raw = figures_of(shared, samples, shared.member_scores, max_tokens=max_tokens, on_finished=on_scored)
    found = [_calibration_of(scores) for scores in raw]
    for member, each in zip(members, found, strict=True):
        member.head.calibrate(each.mean, each.standard_deviation)
    if settings.combine == AVERAGE:
        average_members(shared, members)
        return _as_trained(found, calibrate(shared, samples, max_tokens=max_tokens))
    scores = torch.stack([(row - each.mean) / each.standard_deviation for row, each in zip(raw, found, strict=True)])
    total = _calibration_of(shared.ensemble.total(scores))
    disagreement = max(float(member_deviation(scores).mean()), _LEAST)
    how = replace(how, center=total.mean, scale=total.standard_deviation, disagreement=disagreement)
    shared.ensemble = Ensemble(tuple(members), how)
    return _as_trained(found, total)


@torch.no_grad()
def average_members(shared: SharedModel, members: Sequence[RewardMember]) -> None:
    """Give the run's reward model the mean of the members' weights, and release the others.

    Source: WARM, Ramé et al. (arXiv 2401.12187), Eq. 2. The means of A and of B approximate the mean of B·A: the
    members start from the same A and B.
    """
    states = [shared.adapters.state(member.adapter) for member in members]
    shared.adapters.load(REWARD, {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})
    heads = [dict(member.head.linear.named_parameters()) for member in members]
    mean = {name: torch.stack([head[name].detach() for head in heads]).mean(0) for name in heads[0]}
    shared.score_head.linear.load_state_dict(mean)
    for member in members:
        if member.adapter != REWARD:
            shared.adapters.remove(member.adapter)
    shared.ensemble = None


def take_length_off(shared: SharedModel, slope: float, samples: Sequence[Encoded], *, max_tokens: int | None) -> float:
    """Remove from the score what length explains, and calibrate it to mean 0 and deviation 1 on reference samples.

    ``slope`` is the effect of one more token within a prompt. Returns the divisor.

    Raises:
        TrainingError: no variation is left.
    """
    shared.residual = LengthResidual(slope)
    left = _calibration_of(score_samples(shared, samples, max_tokens=max_tokens))
    shared.residual = LengthResidual(slope, left.mean, left.standard_deviation)
    return left.standard_deviation


def _as_trained(members: Sequence[Calibration], total: Calibration) -> Calibration:
    mean = sum(each.mean for each in members) / len(members)
    deviation = sum(each.standard_deviation for each in members) / len(members)
    return Calibration(mean, deviation * total.standard_deviation, total.samples)


def _calibration_of(scores: Tensor) -> Calibration:
    mean, deviation = float(scores.mean()), float(scores.std(unbiased=False))
    if not math.isfinite(mean) or not deviation > _LEAST:
        raise TrainingError(
            f"the reward model assigns the same score to all reference samples (standard deviation {deviation:.2g}); "
            "check the comparisons (`triphase check`), or train longer"
        )
    return Calibration(mean, deviation, len(scores))
