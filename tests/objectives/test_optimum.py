"""PPO with these objectives ends at the closed-form optimum, and does not with a planted fault."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from tests.objectives.faults import FAULTS
from tests.objectives.toy import (
    OVER,
    SOUND,
    Method,
    World,
    bandit,
    best_probabilities,
    distance_after_ppo,
    ending,
    evaluate,
    every_response,
    five_arms,
    no_whitening,
    policy_after_ppo,
    response_probabilities,
    total_variation,
    two_tokens,
    variable_length,
)
from tests.objectives.toy_pipeline import Pipeline
from torch import Tensor

from triphase import objectives
from triphase.settings.ppo import PPOSettings

GATE = 0.005
UNSEEN_BY_THE_GATE = "padding in advantage whitening"


def in_float64(world: World) -> World:
    return replace(world, reference_logits=world.reference_logits.double(), scores=world.scores.double())


# The closed forms


def figures(world: World, kl_coefficient: float, probabilities: Tensor) -> tuple[float, float]:
    """Expected score and KL to the reference of a distribution over responses."""
    scores = ending(world.scores, *every_response(world))
    reference = response_probabilities(world, world.reference_logits)
    return float((probabilities * scores).sum()), float((probabilities * (probabilities / reference).log()).sum())


@pytest.mark.parametrize(
    ("kl_coefficient", "best", "score", "kl", "objective"),
    [
        (2.0, [0.32504, 0.32154, 0.35342], 1.02838, 0.08353, 0.86132),
        (1.0, [0.179000, 0.291944, 0.529056], 1.350056, 0.322834, 1.027222),
        (0.5, [0.036667, 0.162559, 0.800774], 1.764107, 0.915475, 1.306369),
    ],
)
def test_optimum_of_the_bandit(
    kl_coefficient: float, best: list[float], score: float, kl: float, objective: float
) -> None:
    world = in_float64(bandit())
    found = best_probabilities(world, kl_coefficient)
    assert found.tolist() == pytest.approx(best, abs=1e-5)
    assert figures(world, kl_coefficient, found) == pytest.approx((score, kl), abs=1e-5)
    assert score - kl_coefficient * kl == pytest.approx(objective, abs=2e-5)


def test_optimum_of_two_tokens() -> None:
    world = in_float64(two_tokens())
    best = best_probabilities(world, 1.0)
    assert best.tolist() == pytest.approx([0.259558, 0.302379, 0.365312, 0.072751], abs=1e-6)
    assert figures(world, 1.0, best) == pytest.approx((0.960252, 0.478976), abs=1e-6)
    harder = best_probabilities(world, 0.5)
    assert harder.tolist() == pytest.approx([0.068169, 0.215872, 0.708930, 0.007029], abs=1e-6)
    assert soft_optimum(world, 1.0)[1].tolist() == pytest.approx([0.481275, 0.415735, 0.572174], abs=1e-6)
    assert soft_optimum(world, 0.5)[1].tolist() == pytest.approx([0.909135, 0.535229, 1.200214], abs=1e-6)


def test_the_optimum_keeps_under_an_offset_and_a_common_scale() -> None:
    world = in_float64(bandit())
    best = best_probabilities(world, 1.0)
    assert torch.allclose(best_probabilities(replace(world, scores=world.scores + 5), 1.0), best)
    assert torch.allclose(best_probabilities(replace(world, scores=3 * world.scores), 3.0), best)


def test_every_other_policy_falls_short_by_its_kl_to_the_optimum() -> None:
    world = in_float64(two_tokens())
    best = best_probabilities(world, 0.7)
    other = response_probabilities(world, world.reference_logits + 0.3)
    scores = {}
    for name, probabilities in (("best", best), ("other", other)):
        score, kl = figures(world, 0.7, probabilities)
        scores[name] = score - 0.7 * kl
    shortfall = 0.7 * float((other * (other / best).log()).sum())
    assert scores["best"] - scores["other"] == pytest.approx(shortfall, abs=1e-12)


# The soft-value invariant: at the optimum, with the value of the optimum, no token has an advantage


def soft_optimum(world: World, kl_coefficient: float) -> tuple[Tensor, Tensor]:
    """π* as logits (S, V), and V(s) = β·log E_ref[exp(score/β) | s] (S,), from the leaves back."""
    reference = world.reference_logits.log_softmax(-1)
    values, logits = torch.zeros(len(reference)).double(), torch.zeros_like(reference)
    for state in reversed(range(len(reference))):
        following = world.next_state[state]
        ahead = torch.where(following == OVER, world.scores[state], values[following])
        logits[state] = reference[state] + ahead / kl_coefficient
        values[state] = kl_coefficient * logits[state].logsumexp(0)
    return logits, values


def advantages_at_the_optimum(world: World, method: Method, kl_coefficient: float, gae_lambda: float) -> Tensor:
    """(M, R) advantages of every response, as the method computes them at the sampling temperature's optimum."""
    tempered = replace(world, reference_logits=world.reference_logits / method.sampling_temperature)
    logits, values = soft_optimum(tempered, kl_coefficient)
    rollout = evaluate(world, logits * method.sampling_temperature, values, method, *every_response(world))
    rewards = method.token_rewards(rollout, kl_coefficient)
    return torch.where(rollout.mask, method.advantages(rollout, rewards, gae_lambda).advantages, 0)


@pytest.mark.parametrize("make", [bandit, two_tokens, variable_length])
@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("kl_coefficient", [0.5, 1.0])
def test_no_token_has_an_advantage_at_the_optimum(make: object, gae_lambda: float, kl_coefficient: float) -> None:
    assert callable(make)
    for method in (SOUND, Method(sampling_temperature=0.7, training_temperature=0.7)):
        found = advantages_at_the_optimum(in_float64(make()), method, kl_coefficient, gae_lambda)
        assert found.abs().max().item() < 1e-12


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != UNSEEN_BY_THE_GATE])
def test_the_soft_value_invariant_sees_the_fault(fault: str) -> None:
    found = advantages_at_the_optimum(in_float64(variable_length()), FAULTS[fault], 0.7, 0.95)
    assert found.abs().max().item() > 0.01


# PPO on sampled responses


@pytest.mark.parametrize("kl_coefficient", [2.0, 1.0, 0.5])
def test_ppo_on_the_bandit(kl_coefficient: float) -> None:
    assert distance_after_ppo(bandit(), SOUND, kl_coefficient=kl_coefficient, seed=0, iterations=100) < GATE


@pytest.mark.parametrize("kl_coefficient", [1.0, 0.5])
def test_ppo_on_two_tokens(kl_coefficient: float) -> None:
    found = distance_after_ppo(two_tokens(), SOUND, kl_coefficient=kl_coefficient, seed=0)
    assert found < GATE


@cache
def distance(method: Method, seed: int = 0) -> float:
    return distance_after_ppo(variable_length(), method, kl_coefficient=0.7, seed=seed)


@pytest.mark.parametrize(
    ("method", "seed"),
    [
        (SOUND, 0),
        (SOUND, 1),
        (Method(whiten=no_whitening), 0),
        (Method(sampling_temperature=0.7, training_temperature=0.7), 0),
    ],
    ids=["seed 0", "seed 1", "without whitening", "temperature .7"],
)
def test_ppo_with_variable_length(method: Method, seed: int) -> None:
    assert distance(method, seed) < GATE


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != UNSEEN_BY_THE_GATE])
def test_ppo_with_a_fault_misses_the_optimum(fault: str) -> None:
    assert distance(FAULTS[fault]) > GATE


def test_ppo_with_k3_in_the_reward_misses_two_tokens_by_far() -> None:
    found = distance_after_ppo(two_tokens(), FAULTS["k3 in the reward"], kl_coefficient=1.0, seed=0)
    assert found > 0.6


# The shaping of PPOPhase, whole, for every choice of score_normalization

WORLDS = {"five arms": (five_arms, 0.7), "two tokens": (two_tokens, 1.0), "variable length": (variable_length, 0.7)}
NO_LIMIT = {"missing_eos_penalty": 0.0, "score_clip": None}


def after_pipeline(world: str, pipeline: Pipeline, factor: float = 1.0) -> tuple[float, float]:
    """Distances from the optimum of the coefficient in the settings, and from that of the effective one."""
    make, coefficient = WORLDS[world]
    assert callable(make)
    found = policy_after_ppo(make(), pipeline.method(), kl_coefficient=coefficient, seed=0)
    reached = response_probabilities(make(), found)
    effective = pipeline.figures["ppo/effective_kl_coefficient"] / factor
    return tuple(total_variation(reached, best_probabilities(make(), beta)) for beta in (coefficient, effective))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("kind", ["calibrated", "running", "raw"])
def test_the_coefficient_means_what_it_says(world: str, kind: str) -> None:
    pipeline = Pipeline(score_normalization=kind, missing_eos_penalty=0.0)
    assert max(after_pipeline(world, pipeline)) < GATE
    assert pipeline.figures["ppo/effective_kl_coefficient"] == pytest.approx(WORLDS[world][1])


def test_the_default_is_one_of_these() -> None:
    assert PPOSettings().score_normalization == "calibrated"


@pytest.mark.parametrize(("world", "least"), [("five arms", 0.5), ("two tokens", 0.01), ("variable length", 0.05)])
def test_batch_whitening_ends_elsewhere(world: str, least: float) -> None:
    assert after_pipeline(world, Pipeline(score_normalization="batch", missing_eos_penalty=0.0))[0] > least


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("kind", ["calibrated", "running"])
def test_a_scorer_of_any_scale_ends_at_the_optimum_of_the_effective_coefficient(world: str, kind: str) -> None:
    pipeline = Pipeline(calibrated=False, offset=500.0, factor=200.0, score_normalization=kind, **NO_LIMIT)
    assert after_pipeline(world, pipeline, factor=200.0)[1] < GATE


@pytest.mark.parametrize("offset", [-3.0, 3.0])
def test_an_offset_of_every_score_changes_nothing(offset: float) -> None:
    """To the rounding of float32, which Adam carries on: the same policy, not another of the same quality."""
    world = variable_length()
    plain, moved = (
        policy_after_ppo(world, Pipeline(offset=by).method(), kl_coefficient=0.7, seed=0, iterations=30)
        for by in (0.0, offset)
    )
    assert torch.allclose(plain, moved, atol=1e-3)
    assert not torch.allclose(plain, world.reference_logits, atol=0.1)


# Direct tests of two faults: the optimum moves little by the one, and not at all by the other


def two_lengths() -> tuple[Tensor, Tensor]:
    """Advantages (2, 4) of a response of four tokens and one of a single token, and their mask."""
    mask = torch.tensor([[True] * 4, [True, False, False, False]])
    return torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 0.0, 0.0, 0.0]], dtype=torch.float64), mask


@pytest.mark.parametrize(("method", "sound"), [(SOUND, True), (FAULTS[UNSEEN_BY_THE_GATE], False)])
def test_whitening_counts_real_tokens_alone(method: Method, sound: bool) -> None:
    advantages, mask = two_lengths()
    white = method.whiten(advantages, mask)
    root = 2**0.5  # mean 3, variance 2
    expected = torch.tensor([[-2 / root, -1 / root, 0.0, 1 / root], [2 / root, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(white, expected, atol=1e-12) is sound
    assert (abs(objectives.masked_mean(white, mask).item()) < 1e-12) is sound


@pytest.mark.parametrize(("method", "sound"), [(SOUND, True), (FAULTS["bootstrap at the cut"], False)])
def test_a_cut_response_ends_there(method: Method, sound: bool) -> None:
    """Three tokens cut at the limit, values .5 .6 .7, score -1, λ = 1: the return is -1 at each token."""
    world = in_float64(variable_length())
    states, actions, mask = torch.tensor([[0, 1, 3, 0]]), torch.zeros(1, 4, dtype=torch.long), torch.arange(4)[None] < 3
    values = torch.zeros(len(world.next_state)).double()
    values[[0, 1, 3]] = torch.tensor([0.5, 0.6, 0.7]).double()
    rollout = evaluate(world, world.reference_logits, values, method, states, actions, mask)
    assert not rollout.finished.any()
    found = method.advantages(rollout, method.token_rewards(rollout, 0.7), 1.0).returns
    assert (found[0].tolist() == pytest.approx([-1, -1, -1, 0])) is sound
