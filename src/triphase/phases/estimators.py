"""How the rewards of a rollout become advantages: one estimator for each value of ``ppo.advantage_estimator``.

A new kind is a class with these members, a line in ``ESTIMATORS`` and its name in the settings.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from triphase.errors import RunError
from triphase.objectives.advantages import Advantages, generalized_advantages
from triphase.objectives.baselines import (
    batch_mean_advantages,
    group_standardized_advantages,
    leave_one_out_advantages,
)
from triphase.settings.ppo import PPOSettings
from triphase.training.checkpoint import load_checkpoint
from triphase.training.checkpoint_places import whole_steps


class AdvantageEstimator(Protocol):
    """Advantages of every token from the rewards of every token."""

    def __call__(self, token_rewards: Tensor, values: Tensor | None, mask: Tensor, groups: Tensor) -> Advantages:
        """Advantages and returns, each (B, R), 0 at padding.

        Args:
            token_rewards: (B, R).
            values: (B, R) of the critic; None without a critic.
            mask: (B, R) bool, True on the response tokens, right-padded.
            groups: (B,) int64, the number of each response's prompt.
        """
        ...


@dataclass(frozen=True, slots=True)
class GeneralizedAdvantage:
    """Generalized advantage estimation, with a critic."""

    discount: float
    gae_lambda: float

    def __call__(self, token_rewards: Tensor, values: Tensor | None, mask: Tensor, groups: Tensor) -> Advantages:
        """As in :class:`AdvantageEstimator`; groups are not used."""
        if values is None:
            raise ValueError("generalized advantage estimation needs the values of a critic; values is None")
        return generalized_advantages(token_rewards, values, mask, discount=self.discount, gae_lambda=self.gae_lambda)


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """The mean return of the other responses to the prompt as baseline."""

    def __call__(self, token_rewards: Tensor, values: Tensor | None, mask: Tensor, groups: Tensor) -> Advantages:
        """As in :class:`AdvantageEstimator`; values are not used."""
        return leave_one_out_advantages(token_rewards, mask, groups)


@dataclass(frozen=True, slots=True)
class GroupStandardized:
    """The return standardized over the responses to the prompt."""

    def __call__(self, token_rewards: Tensor, values: Tensor | None, mask: Tensor, groups: Tensor) -> Advantages:
        """As in :class:`AdvantageEstimator`; values are not used."""
        return group_standardized_advantages(token_rewards, mask, groups)


@dataclass(frozen=True, slots=True)
class BatchMean:
    """The mean return of the rollout as baseline."""

    def __call__(self, token_rewards: Tensor, values: Tensor | None, mask: Tensor, groups: Tensor) -> Advantages:
        """As in :class:`AdvantageEstimator`; neither values nor groups are used."""
        return batch_mean_advantages(token_rewards, mask)


ESTIMATORS: Mapping[str, Callable[[PPOSettings], AdvantageEstimator]] = {
    "gae": lambda settings: GeneralizedAdvantage(settings.discount, settings.gae_lambda),
    "rloo": lambda settings: LeaveOneOut(),
    "grpo": lambda settings: GroupStandardized(),
    "reinforce": lambda settings: BatchMean(),
}


def estimator_of(settings: PPOSettings) -> AdvantageEstimator:
    """The estimator that the settings name."""
    return ESTIMATORS[settings.advantage_estimator](settings)


def kept_as(settings: PPOSettings) -> str | None:
    """The estimator's name in a checkpoint: empty for the default, so that old checkpoints count as the default's."""
    return None if settings.has_critic else settings.advantage_estimator


def require_same_estimator(checkpoints: Path, settings: PPOSettings) -> None:
    """Check that the newest whole checkpoint, if any, was made with the estimator of the settings.

    Raises:
        RunError: it was made with another, which has other trained parameters and another objective.
    """
    step = next(whole_steps(checkpoints), None)
    if step is None:
        return
    kept = load_checkpoint(checkpoints, step).values["values"].get("advantage_estimator", "gae")
    if kept != settings.advantage_estimator:
        raise RunError(
            f"{checkpoints} was started with ppo.advantage_estimator {kept}, but the settings "
            f"say {settings.advantage_estimator}; set it back, or start a new run (--name)"
        )
