"""The reward shaping of PPOPhase, whole, as a method of the toy: what the defaults do to a known optimum."""

from types import SimpleNamespace
from typing import Any

import torch
from tests.objectives.toy import Method, Rollout, no_whitening
from torch import Tensor

from triphase import objectives
from triphase.phases.experience import Experience
from triphase.phases.rewards import advantages_of, shape_rewards
from triphase.phases.score_scale import ScoreScale, next_scale
from triphase.phases.trunk_states import TrunkStates
from triphase.settings.ppo import PPOSettings


class Pipeline:
    """Scores to advantages as PPOPhase does it under some settings, over the rollouts of one run.

    Attributes:
        figures: of the last rollout.
    """

    def __init__(self, *, calibrated: bool = True, offset: float = 0.0, factor: float = 1.0, **changes: Any) -> None:
        """A scorer that gives ``factor`` · score + ``offset``; ``calibrated`` is the run's own reward model."""
        self._settings = PPOSettings.model_validate(changes)
        self._calibrated = calibrated
        self._offset, self._factor = offset, factor
        self._kept: ScoreScale | None = None
        self.figures: dict[str, float] = {}

    def token_rewards(self, rollout: Rollout, kl_coefficient: float) -> Tensor:
        experience = self._experience(rollout)
        scale = next_scale(self._kept, experience.scores, self._settings, calibrated=self._calibrated)
        self._kept = scale
        rewards, self.figures = shape_rewards(
            experience, rollout.finished, self._settings, kl_coefficient=kl_coefficient, scale=scale
        )
        return rewards

    def advantages(self, rollout: Rollout, token_rewards: Tensor, gae_lambda: float) -> objectives.Advantages:
        assert gae_lambda == self._settings.gae_lambda
        # The responses to one prompt stand side by side, as in a rollout of PPOPhase.
        groups = torch.arange(len(token_rewards)) // self._settings.responses_per_prompt
        return advantages_of(token_rewards, self._experience(rollout), self._settings, groups)

    def method(self) -> Method:
        """The advantages come whitened."""
        return Method(token_rewards=self.token_rewards, advantages=self.advantages, whiten=no_whitening)

    def _experience(self, rollout: Rollout) -> Experience:
        batch: Any = SimpleNamespace(response_mask=rollout.mask)
        return Experience(
            batch=batch,
            boundary=TrunkStates(torch.empty(0), {}),
            minibatches=[],
            entropy=torch.zeros_like(rollout.rollout_logprobs),
            logprobs=rollout.rollout_logprobs,
            reference_logprobs=rollout.reference_logprobs,
            values=rollout.values if self._settings.has_critic else None,
            scores=self._factor * rollout.scores + self._offset,
        )
