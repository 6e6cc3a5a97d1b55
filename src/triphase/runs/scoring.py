"""Who scores the responses of a run: what its settings choose, with what the run lends to it."""

from contextlib import AbstractContextManager

from triphase.datacheck.opening import place_of
from triphase.models.roles import SharedModel
from triphase.rewards.registry import opened
from triphase.rewards.types import Scorer, ScorerContext
from triphase.runs.session import Run
from triphase.settings.ppo import PPOSettings
from triphase.training.artifacts import REWARD
from triphase.training.reward_finals import load_reward_model


def scorer_of(run: Run, settings: PPOSettings, *, begins: bool = False) -> AbstractContextManager[Scorer]:
    """The scorer of a PPO run; Ctrl-C ends the wait for it. ``begins``: it is asked about a rollout first.

    Raises:
        TriphaseError: it cannot be opened.
    """

    def reward_model() -> SharedModel:
        shared = run.model()
        load_reward_model(shared, run.artifact(REWARD))
        return shared

    return opened(
        ScorerContext(
            settings.scorer,
            place_of=place_of,
            check=run.raise_if_stop_requested,
            reward_model=reward_model,
            directory=run.path,
            max_tokens=settings.microbatch_tokens,
            begins=begins,
            lent=run.lent,
        )
    )
