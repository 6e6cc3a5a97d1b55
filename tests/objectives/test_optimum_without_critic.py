"""The estimators without a critic: their exact expected gradient, and where PPO with them ends."""

from itertools import product
from typing import Any

import pytest
import torch
from tests.objectives.faults import FAULTS
from tests.objectives.test_optimum import GATE, after_pipeline, in_float64, soft_optimum
from tests.objectives.toy import (
    SOUND,
    Method,
    World,
    bandit,
    distance_after_ppo,
    ending,
    evaluate,
    every_response,
    no_whitening,
    sound_token_rewards,
    two_tokens,
    variable_length,
)
from tests.objectives.toy_pipeline import Pipeline
from torch import Tensor

from triphase.phases.estimators import ESTIMATORS
from triphase.settings.ppo import PPOSettings

KINDS = ("rloo", "grpo", "reinforce")
every_kind = pytest.mark.parametrize("kind", KINDS)


def pipeline(kind: str, **changes: Any) -> Pipeline:
    return Pipeline(advantage_estimator=kind, missing_eos_penalty=0.0, **changes)


# The exact gradient: every rollout of K responses to one prompt, weighed by its probability


def exact_gradient(world: World, logits: Tensor, kl_coefficient: float) -> Tensor:
    """Of E[score] - β·KL(π‖π_ref) by the logits (S, V), by autograd over every response."""
    states, actions, mask = every_response(world)
    table = logits.clone().requires_grad_()
    logprobs = (table.log_softmax(-1)[states, actions] * mask).sum(1)
    reference = (world.reference_logits.log_softmax(-1)[states, actions] * mask).sum(1)
    scores = ending(world.scores, states, actions, mask)
    objective = (logprobs.exp() * (scores - kl_coefficient * (logprobs - reference))).sum()
    return torch.autograd.grad(objective, table)[0]


def expected_gradient(
    world: World, logits: Tensor, kind: str, count: int, kl_coefficient: float, *, centered_first: bool = False
) -> Tensor:
    """E[Σ_i Σ_t Â_{i,t}·∇log π(y_{i,t})] over all rollouts of ``count`` responses, (S, V)."""
    everything = every_response(world)
    table = logits.clone().requires_grad_()
    logprobs = table.log_softmax(-1)[everything[0], everything[1]] * everything[2]
    likelihood = logprobs.detach().sum(1).exp()
    values = torch.zeros(len(logits)).double()
    sizes = {"responses_per_prompt": count, "batch_size": count, "minibatch_size": count, "score_clip": None}
    total = torch.zeros(()).double()
    for chosen in product(range(len(likelihood)), repeat=count):
        rows = torch.tensor(chosen)
        rollout = evaluate(world, logits, values, SOUND, *(each[rows] for each in everything))
        one = pipeline(kind, **sizes)
        shaped = Pipeline(missing_eos_penalty=0.0, score_clip=None) if centered_first else one
        rewards = shaped.token_rewards(rollout, kl_coefficient)
        advantages = one.advantages(rollout, rewards, 0.95).advantages
        total = total + likelihood[rows].prod() * (advantages * logprobs[rows]).sum()
    return torch.autograd.grad(total, table)[0]


def elsewhere(world: World) -> Tensor:
    """Logits of a policy that is neither the reference nor the optimum."""
    draw = torch.Generator().manual_seed(3)
    return world.reference_logits + 0.5 * torch.randn(world.reference_logits.shape, generator=draw).double()


@pytest.mark.parametrize(("make", "count"), [(bandit, 2), (bandit, 4), (two_tokens, 3), (variable_length, 2)])
@pytest.mark.parametrize(("kind", "responses"), [("rloo", 0), ("reinforce", -1)])
def test_the_expected_gradient_is_that_of_the_objective(make: Any, count: int, kind: str, responses: int) -> None:
    """Once for each response; where the mean counts the response itself, for one less."""
    world = in_float64(make())
    logits = elsewhere(world)
    wanted = (count + responses) * exact_gradient(world, logits, 0.7)
    assert wanted.abs().max() > 0.05
    assert torch.allclose(expected_gradient(world, logits, kind, count, 0.7), wanted, atol=1e-9)


@every_kind
@pytest.mark.parametrize("make", [bandit, two_tokens])
def test_centering_the_scores_first_would_count_them_twice(kind: str, make: Any) -> None:
    """Why the scores reach these estimators uncentered: K/(K-1) of the score would stand against the penalty."""
    world = in_float64(make())
    best, _ = soft_optimum(world, 0.7)
    assert expected_gradient(world, best, kind, 3, 0.7).abs().max() < 1e-9
    assert expected_gradient(world, best, kind, 3, 0.7, centered_first=True).abs().max() > 0.01


@pytest.mark.parametrize("count", [2, 3])
def test_the_standardized_gradient_climbs_and_vanishes_at_the_optimum_alone(count: int) -> None:
    world = in_float64(two_tokens())
    best, _ = soft_optimum(world, 0.7)
    assert expected_gradient(world, best, "grpo", count, 0.7).abs().max() < 1e-9
    logits = elsewhere(world)
    found, exact = expected_gradient(world, logits, "grpo", count, 0.7), exact_gradient(world, logits, 0.7)
    assert (found * exact).sum() > 0
    assert found.abs().max() > 0.1


# At the optimum every response has the same return, so no advantage at all


def advantages_at_the_optimum(kind: str, world: World, method: Method, kl_coefficient: float) -> Tensor:
    logits, values = soft_optimum(world, kl_coefficient)
    everything = every_response(world)
    # Twice, for two prompts: every group is all responses of the world.
    rollout = evaluate(world, logits, values, method, *(torch.cat([each, each]) for each in everything))
    count, rewards = len(everything[0]), method.token_rewards(rollout, kl_coefficient)
    return ESTIMATORS[kind](PPOSettings())(rewards, None, rollout.mask, torch.arange(2 * count) // count).advantages


@every_kind
@pytest.mark.parametrize("make", [bandit, two_tokens, variable_length])
@pytest.mark.parametrize("kl_coefficient", [0.5, 1.0])
def test_no_response_has_an_advantage_at_the_optimum(kind: str, make: Any, kl_coefficient: float) -> None:
    found = advantages_at_the_optimum(kind, in_float64(make()), SOUND, kl_coefficient)
    assert found.abs().max().item() < 1e-9


@every_kind
@pytest.mark.parametrize("fault", [name for name, m in FAULTS.items() if m.token_rewards is not sound_token_rewards])
def test_the_invariant_sees_a_fault_in_the_rewards(kind: str, fault: str) -> None:
    found = advantages_at_the_optimum(kind, in_float64(variable_length()), FAULTS[fault], 0.7)
    assert found.abs().max().item() > 0.01


# PPO on sampled responses, with the shaping of PPOPhase


@every_kind
@pytest.mark.parametrize("world", ["five arms", "two tokens", "variable length"])
def test_ppo_ends_at_the_optimum(kind: str, world: str) -> None:
    count = 1 if kind == "reinforce" else 4
    assert after_pipeline(world, pipeline(kind, responses_per_prompt=count))[0] < GATE


@every_kind
def test_ppo_with_a_fault_in_the_rewards_misses_the_optimum(kind: str) -> None:
    method = Method(
        token_rewards=FAULTS["no KL on the last token"].token_rewards,
        advantages=pipeline(kind, responses_per_prompt=4).advantages,
        whiten=no_whitening,
    )
    assert distance_after_ppo(variable_length(), method, kl_coefficient=0.7, seed=0) > GATE
