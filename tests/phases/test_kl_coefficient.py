"""Real PPO with responses of one token: its end is π_ref·exp(score/β), at the β of the settings."""

import pytest
import torch
from tests.small import Encoded, shared_model, stir
from torch import Tensor

from triphase.models.policies import policy_for
from triphase.models.roles import REFERENCE, REWARD, SharedModel
from triphase.phases.ppo import PPOPhase
from triphase.records.types import Message, Prompt
from triphase.rewards.model import score_samples
from triphase.rollouts.decoding import LocalGenerator
from triphase.settings.phases import OptimizerSettings
from triphase.settings.ppo import PPOSettings

PROMPT = Prompt("oak", (Message("user", "oak"),))
COEFFICIENT = 0.5
SPREAD = 0.08
"""Five seeds end at 0.475 to 0.56; scores divided by each rollout's deviation end below 0.4."""


def world() -> tuple[SharedModel, tuple[int, ...], Tensor]:
    """A small model whose reward model is calibrated on its own answers, its prompt, and the score of each token."""
    shared = shared_model(adapted="all", layers=2, hidden_size=64, head_dim=16)  # wide enough for any distribution
    stir(shared, REFERENCE, seed=1)
    stir(shared, REWARD, seed=2)
    prompt = tuple(shared.template.prompt_ids(PROMPT.messages))
    scores = scores_of(shared, prompt)
    weights = probabilities(shared, prompt, REFERENCE)
    mean = float((weights * scores).sum())
    shared.score_head.calibrate(mean, float((weights * (scores - mean).square()).sum().sqrt()))
    return shared, prompt, scores_of(shared, prompt)


def scores_of(shared: SharedModel, prompt: tuple[int, ...]) -> Tensor:
    count = shared.backbone.model.config.vocab_size
    return score_samples(shared, [Encoded(prompt, (token,)) for token in range(count)], max_tokens=None).double()


@torch.no_grad()
def probabilities(shared: SharedModel, prompt: tuple[int, ...], adapter: str) -> Tensor:
    with shared.role(adapter):
        logits = shared.backbone.model(input_ids=torch.tensor([prompt])).logits[0, -1]
    return logits.double().softmax(-1)


def best_fitting(policy: Tensor, reference: Tensor, scores: Tensor) -> float:
    """The β whose optimum is nearest to the policy, by KL(π‖π*_β)."""
    candidates = torch.linspace(0.1, 1.2, 221, dtype=torch.float64)
    optima = (reference.log() + scores / candidates[:, None]).log_softmax(-1)
    return float(candidates[(policy * (policy.log() - optima)).sum(-1).argmin()])


def fitted(**changes: object) -> float:
    """The best-fitting β after PPO under the defaults and ``changes``."""
    shared, prompt, scores = world()
    values: dict[str, object] = {
        "iterations": 40,
        "batch_size": 256,
        "minibatch_size": 256,
        "max_response_tokens": 1,
        "kl_coefficient": COEFFICIENT,
        "missing_eos_penalty": 0.0,
        "microbatch_tokens": 8192,
        "optimizer": OptimizerSettings(learning_rate=1e-2, head_learning_rate=2e-2, schedule="linear"),
    }
    settings = PPOSettings.model_validate(values | changes)
    policy = policy_for(shared, settings.method)
    generator = LocalGenerator(policy.model, adapter=policy.adapter, batch_size=256)
    ppo = PPOPhase(shared, [PROMPT], [prompt], generator, settings, seed=0, policy=policy)
    for iteration in range(settings.iterations):
        ppo.advance(iteration)
    acting = probabilities(policy.model, prompt, policy.adapter)
    return best_fitting(acting, probabilities(shared, prompt, REFERENCE), scores)


def test_under_the_defaults_ppo_ends_at_the_optimum_of_the_coefficient_in_the_settings() -> None:
    assert fitted() == pytest.approx(COEFFICIENT, abs=SPREAD)


@pytest.mark.parametrize("kind", ["rloo", "grpo", "reinforce"])
def test_so_it_does_without_a_critic(kind: str) -> None:
    assert fitted(advantage_estimator=kind, responses_per_prompt=4) == pytest.approx(COEFFICIENT, abs=SPREAD)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"advantage_estimator": "rloo", "responses_per_prompt": 4}])
def test_so_does_ppo_of_all_weights(changes: dict[str, object]) -> None:
    optimizer = OptimizerSettings(learning_rate=2e-3, head_learning_rate=2e-2, schedule="linear")
    assert fitted(method="full", optimizer=optimizer, **changes) == pytest.approx(COEFFICIENT, abs=SPREAD)


def test_batch_whitening_ends_at_that_of_a_much_smaller_one() -> None:
    assert fitted(score_normalization="batch") < 0.4
