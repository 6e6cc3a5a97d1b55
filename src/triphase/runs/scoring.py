"""The scorer of a run's responses: the one in its settings, with what the run provides to it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from triphase.datacheck.model_names import place_of
from triphase.models.roles import SharedModel
from triphase.phases.rank_sharing import LedScorer
from triphase.rewards.model import ModelScorer
from triphase.rewards.registry import opened, reward_models_in
from triphase.rewards.types import Scorer, ScorerContext
from triphase.runs.session import Run
from triphase.settings.phase_names import REWARD
from triphase.settings.ppo import PPOSettings
from triphase.training.distributed.types import ALONE, Strategy
from triphase.training.reward_finals import load_reward_model


def scorer_of(
    run: Run, settings: PPOSettings, *, begins: bool = False, strategy: Strategy = ALONE
) -> AbstractContextManager[Scorer]:
    """The scorer of a PPO run; Ctrl-C ends the wait for it. ``begins``: its first scores are of a rollout.
    ``strategy``: the processes that share the reward model's work.

    Raises:
        TriphaseError: it cannot be opened.
    """
    return opened(
        ScorerContext(
            settings.scorer,
            place_of=place_of,
            check=run.raise_if_stop_requested,
            reward_model=lambda: _reward_model(run),
            strategy=strategy,
            directory=run.path,
            max_tokens=settings.tokens_at_once,
            device=run.settings.model.device,
            begins=begins,
            scorer_object=run.scorer_object,
        )
    )


@contextmanager
def shared_scorer(run: Run, settings: PPOSettings) -> Iterator[Scorer]:
    """The scorer of PPO's rollouts: that of rank 0, with the reward models inside it shared out."""
    strategy = run.strategy
    if not strategy.is_lead:
        count = reward_models_in(settings.scorer)
        shares = [
            ModelScorer(_reward_model(run), max_tokens=settings.tokens_at_once, strategy=strategy) for _ in range(count)
        ]
        yield LedScorer(None, shares, strategy)
        return
    with scorer_of(run, settings, begins=True, strategy=strategy) as scorer:
        yield scorer if strategy.world == 1 else LedScorer(scorer, [], strategy)


def _reward_model(run: Run) -> SharedModel:
    shared = run.model()
    load_reward_model(shared, run.artifact(REWARD))
    return shared
