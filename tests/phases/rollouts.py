"""A rollout evaluated as PPO does it, with the scores of the shared model's own reward adapter."""

from collections.abc import Sequence

from triphase.models.policies import Policy
from triphase.models.roles import SharedModel
from triphase.phases.experience import Experience, evaluate_rollout, open_rollout
from triphase.records.types import Message, Prompt
from triphase.rewards.model import ModelScorer
from triphase.rewards.types import Answer, Answers
from triphase.settings.ppo import PPOSettings
from triphase.tokens.encoding import Encoded

PROMPT = Prompt("p", (Message("user", "oak"),))


def evaluated(
    shared: SharedModel,
    samples: Sequence[Encoded],
    settings: PPOSettings,
    *,
    seed: int,
    iteration: int,
    policy: Policy | None = None,
) -> Experience:
    rollout = open_rollout(shared, samples, settings, seed=seed, iteration=iteration)
    answers = Answers(tuple(Answer(PROMPT, "", True, sample) for sample in samples), rollout.parts)
    return evaluate_rollout(shared, rollout, ModelScorer(shared).score(answers), settings, policy=policy)
