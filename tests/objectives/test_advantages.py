from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.objectives.examples import noise, response_mask, spoiled
from torch import Tensor

from triphase import objectives

MASK = response_mask([4, 1, 3], 5)


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def advantages_of(rewards: Tensor, values: Tensor, mask: Tensor | None = None, **options: Any) -> objectives.Advantages:
    mask = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask
    return objectives.generalized_advantages(rewards, values, mask, **{"discount": 1.0, "gae_lambda": 0.95, **options})


# Token rewards


def test_rows_of_torchtune() -> None:
    logprobs = torch.tensor([[-0.1], [-0.2], [-0.3]], dtype=torch.float64).expand(3, 3)
    found = objectives.token_rewards(
        torch.tensor([1.0, 2.0, 3.0]),
        logprobs,
        torch.zeros_like(logprobs),
        response_mask([3, 3, 3]),
        kl_coefficient=0.5,
    )
    expected = [[0.05, 0.05, 1.05], [0.1, 0.1, 2.1], [0.15, 0.15, 3.15]]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), atol=1e-12)


def test_the_score_stands_on_the_last_real_token() -> None:
    """Regression: several libraries put it on the padding after the end token."""
    scores = torch.tensor([7.0, -2.0, 3.0])
    found = objectives.token_rewards(scores, torch.zeros(3, 5), torch.zeros(3, 5), MASK, kl_coefficient=0.1)
    expected = [[0, 0, 0, 7, 0], [-2, 0, 0, 0, 0], [0, 0, 3, 0, 0]]
    assert found.tolist() == expected


def test_leaving_the_reference_costs() -> None:
    found = objectives.token_rewards(
        torch.zeros(1), row(-1.0, -2.0), row(-1.5, -1.0), response_mask([2]), kl_coefficient=0.2
    )
    assert found.flatten().tolist() == pytest.approx([-0.1, 0.2])


def test_the_end_token_pays_too() -> None:
    found = objectives.token_rewards(
        torch.tensor([1.0]), row(-1.0, -1.0), row(-1.0, -3.0), response_mask([2]), kl_coefficient=0.5
    )
    assert found.flatten().tolist() == pytest.approx([0, 0])


def test_token_rewards_add_up_to_the_score_less_the_kl() -> None:
    logprobs, reference, scores = noise(3, 5, seed=1), noise(3, 5, seed=2), noise(3, seed=3)
    found = objectives.token_rewards(scores, logprobs, reference, MASK, kl_coefficient=0.3)
    kl = objectives.reference_kl(logprobs, reference, MASK)
    assert found.sum(1).mean().item() == pytest.approx((scores.mean() - 0.3 * kl).item(), abs=1e-12)


def test_without_a_coefficient_only_the_score_is_left() -> None:
    scores = noise(3)
    found = objectives.token_rewards(scores, noise(3, 5, seed=1), noise(3, 5, seed=2), MASK, kl_coefficient=0.0)
    assert torch.equal(found.sum(1), scores)
    assert int((found != 0).sum()) == 3


@pytest.mark.parametrize("junk", [3.0, float("nan"), float("inf")])
def test_padding_gets_no_reward_and_changes_none(junk: float) -> None:
    logprobs, reference, scores = noise(3, 5, seed=1), noise(3, 5, seed=2), noise(3, seed=3)
    wanted = objectives.token_rewards(scores, logprobs, reference, MASK, kl_coefficient=0.3)
    found = objectives.token_rewards(
        scores, spoiled(logprobs, MASK, junk), spoiled(reference, MASK, -junk), MASK, kl_coefficient=0.3
    )
    assert torch.equal(found, wanted)
    assert not found[~MASK].any()


def test_the_penalty_is_what_the_rewards_take_off() -> None:
    logprobs, reference, scores = noise(3, 5, seed=1), noise(3, 5, seed=2), noise(3, seed=3)
    penalty = objectives.kl_penalty(logprobs, reference, MASK, kl_coefficient=0.3)
    rewards = objectives.token_rewards(scores, logprobs, reference, MASK, kl_coefficient=0.3)
    objectives.require_scores_on_last_token(rewards, scores, penalty, MASK, tolerance=1e-12)


def test_rescaled_token_rewards_pay_for_length() -> None:
    """Why it is off by default: a response gains mean·(1 - 1/std) for each token it has."""
    rewards = spoiled(noise(3, 5) - 0.5, MASK, 0.0)
    found = objectives.rescale_token_rewards(rewards, MASK)
    mean = objectives.masked_mean(rewards, MASK)
    deviation = objectives.masked_variance(rewards, MASK).sqrt()
    lengths = MASK.sum(1)
    assert torch.allclose(found.sum(1), rewards.sum(1) / deviation + lengths * mean * (1 - 1 / deviation), atol=1e-12)
    assert not found[~MASK].any()


# Shaping of scores


def test_unfinished_responses() -> None:
    scores, finished = torch.tensor([0.5, 2.0, -3.0]), torch.tensor([True, False, False])
    assert objectives.replace_unfinished(scores, finished, -1.0).tolist() == [0.5, -1, -1]
    assert objectives.penalize_unfinished(scores, finished, 1.0).tolist() == [0.5, 1, -4]
    assert objectives.penalize_unfinished(scores, finished, 0.0).tolist() == scores.tolist()
    assert scores.tolist() == [0.5, 2, -3]


def test_clipped_scores_are_counted() -> None:
    clipped, count = objectives.clip_scores(torch.tensor([-7.0, -5.0, 0.0, 5.5]), 5.0)
    assert clipped.tolist() == [-5, -5, 0, 5]
    assert count == 2


# Generalized advantages: hand-derived and published values


@pytest.mark.parametrize(
    ("rewards", "values", "gae_lambda", "expected"),
    [
        ((0, 0, 1), (0.5, 0.6, 0.7), 0.95, (0.46575, 0.385, 0.3)),
        ((0, 0, 1), (0.5, 0.6, 0.7), 1.0, (0.5, 0.4, 0.3)),
        ((-0.02, 0.01, 0.99), (0.5, 0.6, 0.8), 0.95, (0.450975, 0.3905, 0.19)),
        ((-0.02, 0.01, 0.99), (0.5, 0.6, 0.8), 1.0, (0.48, 0.4, 0.19)),
    ],
)
def test_three_tokens(rewards: Any, values: Any, gae_lambda: float, expected: Any) -> None:
    found = advantages_of(row(*rewards), row(*values), gae_lambda=gae_lambda)
    assert found.advantages.flatten().tolist() == pytest.approx(expected, abs=1e-9)
    assert found.returns.flatten().tolist() == pytest.approx([a + v for a, v in zip(expected, values, strict=True)])


def test_a_score_on_padding_reaches_the_policy_weakened() -> None:
    """Regression: the value of the fault, against the .46575, .385, .3 above."""
    found = advantages_of(row(0, 0, 0, 1), row(0.5, 0.6, 0.7, 0.0))
    assert found.advantages.flatten().tolist()[:3] == pytest.approx([0.420625, 0.3375, 0.25], abs=1e-9)


# rlax bootstraps with a last value of -1; here that is part of the last reward, .99·(-1).
@pytest.mark.parametrize(
    ("gae_lambda", "expected"),
    [
        (1.0, [-1.45118, -4.4557, 2.5396, 0.5249, -0.49]),
        (0.7, [-0.676979, -5.248167, 2.4846, 0.6704, -0.49]),
        (0.4, [0.56731, -6.042, 2.3431, 0.815, -0.49]),
    ],
)
def test_first_row_of_rlax(gae_lambda: float, expected: list[float]) -> None:
    found = advantages_of(row(0, 0, 1, 0, -0.5 - 0.99), row(1, 4, -3, -2, -1), gae_lambda=gae_lambda, discount=0.99)
    assert found.advantages.flatten().tolist() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("gae_lambda", "expected"), [(1.0, [3, 2, 1, 0]), (0.7, [2.2899, 1.73, 1, 0])])
def test_second_row_of_rlax_ends_after_four_tokens(gae_lambda: float, expected: list[float]) -> None:
    found = advantages_of(
        row(0, 0, 0, 0, 1 - 0.9), row(-3, -2, -1, 0, 5), response_mask([4], 5), gae_lambda=gae_lambda, discount=0.9
    )
    assert found.advantages.flatten().tolist() == pytest.approx([*expected, 0], abs=1e-3)
    after = advantages_of(row(1 - 0.9), row(5), gae_lambda=gae_lambda, discount=0.9)
    assert after.advantages.item() == pytest.approx(-4.9)


def test_returns_of_torchtune() -> None:
    found = advantages_of(row(0, 0, 0, 1), row(0, 0, 0, 1), discount=0.9)
    assert found.returns.flatten().tolist() == pytest.approx([0.657922, 0.7695, 0.9, 1], abs=1e-6)


# Against the definition, written as a double sum

DISCOUNT = st.floats(0, 1)


def by_definition(rewards: Tensor, values: Tensor, length: int, discount: float, gae_lambda: float) -> list[float]:
    r, v = rewards.tolist()[:length], [*values.tolist()[:length], 0.0]
    deltas = [r[t] + discount * v[t + 1] - v[t] for t in range(length)]
    weight = discount * gae_lambda
    return [sum(weight ** (later - t) * deltas[later] for later in range(t, length)) for t in range(length)]


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), DISCOUNT, DISCOUNT, st.integers(0, 99))
def test_agrees_with_the_definition(lengths: list[int], discount: float, gae_lambda: float, seed: int) -> None:
    mask = response_mask(lengths, 7)
    rewards, values = noise(*mask.shape, seed=seed), noise(*mask.shape, seed=seed + 100)
    found = advantages_of(rewards, values, mask, discount=discount, gae_lambda=gae_lambda)
    for index, length in enumerate(lengths):
        expected = by_definition(rewards[index], values[index], length, discount, gae_lambda)
        assert found.advantages[index, :length].tolist() == pytest.approx(expected, abs=1e-9)
    assert not found.advantages[~mask].any()
    assert not found.returns[~mask].any()


# Identities


def test_lambda_0_is_the_temporal_difference() -> None:
    rewards, values = noise(3, 5, seed=1), noise(3, 5, seed=2)
    found = advantages_of(rewards, values, MASK, gae_lambda=0.0, discount=0.9).advantages
    following = torch.cat([(values * MASK)[:, 1:], torch.zeros(3, 1)], 1)
    assert torch.allclose(found, (rewards + 0.9 * following - values) * MASK, atol=1e-12)


def test_lambda_1_is_the_discounted_return_less_the_value() -> None:
    rewards, values = noise(3, 5, seed=1), noise(3, 5, seed=2)
    found = advantages_of(rewards, values, MASK, gae_lambda=1.0, discount=0.9)
    for index, length in enumerate(MASK.sum(1).tolist()):
        returns = [sum(0.9 ** (k - t) * rewards[index, k].item() for k in range(t, length)) for t in range(length)]
        assert found.returns[index, :length].tolist() == pytest.approx(returns, abs=1e-12)


def test_a_value_that_is_right_leaves_no_advantage() -> None:
    rewards = noise(3, 5)
    values = (rewards * MASK).flip(1).cumsum(1).flip(1)
    for gae_lambda in (0.0, 0.5, 1.0):
        assert advantages_of(rewards, values, MASK, gae_lambda=gae_lambda).advantages.abs().max() < 1e-12


def test_values_shift_advantages_by_nothing_but_their_own_error() -> None:
    """With λ = 1 and γ = 1 a constant added to all values lowers every advantage by it; returns stay."""
    rewards, values = noise(3, 5, seed=1), noise(3, 5, seed=2)
    one = advantages_of(rewards, values, MASK, gae_lambda=1.0)
    other = advantages_of(rewards, values + 2, MASK, gae_lambda=1.0)
    assert torch.allclose(one.advantages - 2 * MASK, other.advantages, atol=1e-12)
    assert torch.allclose(one.returns, other.returns, atol=1e-12)


# Padding and batch


@pytest.mark.parametrize("junk", [3.0, float("nan"), float("inf")])
def test_padding_changes_nothing(junk: float) -> None:
    rewards, values = noise(3, 5, seed=1), noise(3, 5, seed=2)
    wanted = advantages_of(rewards, values, MASK)
    found = advantages_of(spoiled(rewards, MASK, junk), spoiled(values, MASK, junk), MASK)
    assert torch.equal(found.advantages, wanted.advantages)
    assert torch.equal(found.returns, wanted.returns)


def test_the_width_of_the_batch_changes_nothing() -> None:
    rewards, values = noise(1, 9, seed=1), noise(1, 9, seed=2)
    wide = advantages_of(rewards, values, response_mask([4], 9)).advantages
    narrow = advantages_of(rewards[:, :4], values[:, :4], response_mask([4])).advantages
    assert torch.equal(wide[:, :4], narrow)


def test_half_precision_values_are_summed_in_float32() -> None:
    found = advantages_of(noise(3, 5).bfloat16(), noise(3, 5, seed=1).bfloat16(), MASK)
    assert found.advantages.dtype == found.returns.dtype == torch.float32


# Bad input


def test_bad_input() -> None:
    zeros, scores = torch.zeros(3, 5), torch.zeros(3)
    with pytest.raises(ValueError, match="discount must lie between"):
        advantages_of(zeros, zeros, MASK, discount=1.1)
    with pytest.raises(ValueError, match="gae_lambda must lie between"):
        advantages_of(zeros, zeros, MASK, gae_lambda=-0.1)
    with pytest.raises(ValueError, match="values must have the shape"):
        advantages_of(zeros, zeros[:, :3], MASK)
    with pytest.raises(ValueError, match="run of True followed by False"):
        advantages_of(zeros, zeros, MASK.flip(1))
    with pytest.raises(ValueError, match="values must be constant"):
        advantages_of(zeros, zeros.clone().requires_grad_(), MASK)
    with pytest.raises(ValueError, match="logprobs must be constant"):
        objectives.token_rewards(scores, zeros.clone().requires_grad_(), zeros, MASK, kl_coefficient=0.1)
    with pytest.raises(ValueError, match="kl_coefficient must not be negative"):
        objectives.token_rewards(scores, zeros, zeros, MASK, kl_coefficient=-0.1)
    with pytest.raises(ValueError, match="with B = 3 as in scores"):
        objectives.token_rewards(scores, zeros[:2], zeros[:2], MASK[:2], kl_coefficient=0.1)
    with pytest.raises(ValueError, match="finished must be bool"):
        objectives.replace_unfinished(scores, scores, -1.0)
    with pytest.raises(ValueError, match="penalty must not be negative"):
        objectives.penalize_unfinished(scores, scores > 0, -1.0)
    with pytest.raises(ValueError, match="limit must be above 0"):
        objectives.clip_scores(scores, 0.0)
    with pytest.raises(ValueError, match="scores"):
        objectives.clip_scores(torch.zeros(2, 1), 1.0)
