"""The unit of a run's scores: determined in the first rollout, kept in the checkpoint, the same to the end.

The first rollout is written by the SFT policy, so its scores are reference samples by construction. A KL coefficient
has one meaning for a whole run only if the scores keep one scale: `batch`, which divides each rollout by its own
deviation, amplifies the scores of a policy that has concentrated.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from triphase.objectives.masking import Moments, moments
from triphase.settings.ppo import PPOSettings

_ROUNDING = 4 * torch.finfo(torch.float32).eps
_NO_SPREAD = 1e-5
"""Deviation, in reference deviations, below which scores are assumed to differ only by rounding of a forward pass."""


@dataclass(frozen=True, slots=True)
class ScoreScale:
    """What is subtracted from the scores of a run, and what they are divided by.

    Attributes:
        center: mean score of the first rollout.
        scale: the divisor; None until a rollout of an uncalibrated scorer has scores that differ.
        count, mean, variance: moments of all scores so far.
    """

    center: float = 0.0
    scale: float | None = 1.0
    count: float = 0.0
    mean: float = 0.0
    variance: float = 0.0

    def normalized(self, scores: Tensor) -> Tensor:
        """(score - center)/scale, (B,); exactly 0 if a rollout's scores do not differ, since they carry no signal."""
        if self.scale is None or (len(scores) > 1 and not has_spread(scores, self.scale)):
            return torch.zeros_like(scores)
        return ((scores.double() - self.center) / self.scale).to(scores.dtype)

    def after(self, scores: Tensor, *, grows: bool) -> "ScoreScale":
        """With one more rollout; a scale that ``grows`` rises to the deviation of all scores so far."""
        seen = moments(scores, torch.ones_like(scores, dtype=torch.bool))
        start = self
        if self.scale is None and (len(scores) == 1 or has_spread(scores, 0.0)):
            # One episode has no deviation: its scale is 1.
            start = replace(self, center=float(seen.mean), scale=float(seen.variance.sqrt()) or 1.0)
        if self.count:
            before = (torch.tensor(value).double() for value in (self.count, self.mean, self.variance))
            seen = Moments(*before).merge(seen)
        scale = start.scale
        if grows and scale is not None:
            scale = max(scale, float(seen.variance.sqrt()))
        return replace(
            start, scale=scale, count=float(seen.count), mean=float(seen.mean), variance=float(seen.variance)
        )


def next_scale(kept: ScoreScale | None, scores: Tensor, settings: PPOSettings, *, calibrated: bool) -> ScoreScale:
    """The scale for a rollout with these scores, including those of earlier rollouts.

    Args:
        kept: the scale of the previous rollout; None at the first.
        scores: (B,), as the reward model or another scorer gives them.
        settings: ``score_normalization`` decides.
        calibrated: whether they come from the run's reward model, whose reference deviation is 1.
    """
    if settings.score_normalization not in ("calibrated", "running"):
        return ScoreScale()
    if kept is None:
        start = ScoreScale(center=float(scores.double().mean()), scale=1.0 if calibrated else None)
    else:
        start = kept
    return start.after(scores, grows=settings.score_normalization == "running")


def has_spread(scores: Tensor, scale: float) -> bool:
    """Whether scores (B,) differ by more than rounding: of float32, or of a forward pass at the usual ``scale``."""
    found = moments(scores, torch.ones_like(scores, dtype=torch.bool))
    return float(found.variance.sqrt()) > max(_ROUNDING * float(scores.abs().max()), _NO_SPREAD * scale)
