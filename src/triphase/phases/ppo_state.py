"""What PPO carries from one iteration to the next besides its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from triphase.phases.first_rollout import FirstRollout
from triphase.phases.score_scale import ScoreScale
from triphase.rollouts.engines import EngineChoice
from triphase.settings.extension import schedule_span
from triphase.settings.ppo import PPOSettings
from triphase.training.state import PhaseState, TrainingState


@dataclass
class PPOState(PhaseState):
    """Controllers and running values of PPO.

    Attributes:
        kl_coefficient: the coefficient of the next iteration.
        rollbacks: the iterations at which an alarm was acted on.
        score_scale: the unit of the run's scores; None before the first rollout.
        advantage_estimator: the estimator of this checkpoint; None for the default, as in old checkpoints.
        first_rollout: the baseline of later scores; None in checkpoints of older versions.
        schedule_from: the optimizer step at which an extension restarted the schedule; None if none did.
        engine: what samples the rollouts, as a trial found; None without one.
    """

    kl_coefficient: float = 0.0
    rollbacks: list[int] = field(default_factory=list)
    score_scale: ScoreScale | None = None
    advantage_estimator: str | None = None
    schedule_from: int | None = None
    first_rollout: FirstRollout | None = None
    engine: EngineChoice | None = None

    def unit_of_scores(self, normalization: str) -> float | None:
        """A standard deviation of the SFT policy's scores, in the scorer's own unit; None if unknown.

        It is the run's scale if that is constant. Under `running` the scale grows, and under `batch` and `raw` there is
        none.
        """
        if normalization != "calibrated" and self.first_rollout is not None and self.first_rollout.deviation:
            return self.first_rollout.deviation
        return None if self.score_scale is None else self.score_scale.scale

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``as_json``."""
        scale = values.get("score_scale")
        read = super().from_json(values)
        read.score_scale = None if scale is None else ScoreScale(**scale)
        first = values.get("first_rollout")
        read.first_rollout = None if first is None else FirstRollout.from_json(first)
        engine = values.get("engine")
        read.engine = None if engine is None else EngineChoice(**engine)
        return read


def schedule_iteration(state: TrainingState[PPOState], settings: PPOSettings, iteration: int) -> None:
    """Set the schedule of the learning rates to the iterations that the extensions specify."""
    if not settings.extensions:
        return
    first, end = schedule_span(settings.extensions, settings.iterations, iteration)
    if first == iteration > 0:
        state.values.schedule_from = state.updater.step_count
    state.updater.schedule_over(state.values.schedule_from or 0, (end - first) * settings.steps_per_iteration)
