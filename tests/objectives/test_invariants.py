import math

import pytest
import torch
from tests.objectives.examples import noise, response_mask, spoiled

from triphase import objectives
from triphase.objectives import InvariantError

MASK = response_mask([4, 1, 3], 5)


def test_the_error_is_an_arithmetic_one() -> None:
    assert issubclass(InvariantError, ArithmeticError)


# The first minibatch


def test_the_first_minibatch_passes_with_ratio_1_whatever_stands_at_padding() -> None:
    rollout = noise(3, 5)
    objectives.require_first_minibatch(rollout, rollout, MASK, tolerance=0.0)
    objectives.require_first_minibatch(spoiled(rollout, MASK, math.nan), rollout, MASK, tolerance=0.0)
    objectives.require_first_minibatch(rollout + 1e-5, rollout, MASK, tolerance=1e-4)


@pytest.mark.parametrize(("place", "by"), [((0, 3), 0.01), ((2, 0), -0.01), ((1, 0), math.nan)])
def test_one_token_off_is_found(place: tuple[int, int], by: float) -> None:
    rollout = noise(3, 5)
    logprobs = rollout.clone()
    logprobs[place] += by
    with pytest.raises(InvariantError, match="ratio of policy and rollout policy") as error:
        objectives.require_first_minibatch(logprobs, rollout, MASK, tolerance=1e-4)
    message = str(error.value)
    assert f"is {math.exp(by):.6g} at {place}" in message
    assert "must be 1 within 0.0001" in message
    assert "dropout" in message and "temperature" in message


def test_a_temperature_left_out_is_found() -> None:
    logits, targets = noise(3, 5, 7), torch.zeros(3, 5, dtype=torch.long)
    with pytest.raises(InvariantError):
        objectives.require_first_minibatch(
            objectives.token_logprobs(logits, targets, 1.0),
            objectives.token_logprobs(logits, targets, 0.7),
            MASK,
            tolerance=1e-4,
        )


# Iteration 0


def test_the_reference_kl_of_iteration_0_is_exactly_0() -> None:
    reference = noise(3, 5)
    objectives.require_zero_reference_kl(spoiled(reference, MASK, 9.0), reference, MASK)
    moved = reference.clone()
    moved[2, 1] += 1e-9
    with pytest.raises(
        InvariantError, match=r"policy and reference at iteration 0 must be 0 within 0, but is 1e-09 at"
    ):
        objectives.require_zero_reference_kl(moved, reference, MASK)
    objectives.require_zero_reference_kl(moved, reference, MASK, tolerance=1e-6)


def test_moves_that_cancel_are_found() -> None:
    reference = torch.zeros(1, 2)
    with pytest.raises(InvariantError):
        objectives.require_zero_reference_kl(torch.tensor([[0.5, -0.5]]), reference, response_mask([2]))


# The score on the last real token


def test_scores_on_the_last_token() -> None:
    logprobs, reference, scores = noise(3, 5, seed=1), noise(3, 5, seed=2), noise(3, seed=3)
    rewards = objectives.token_rewards(scores, logprobs, reference, MASK, kl_coefficient=0.3)
    penalty = objectives.kl_penalty(logprobs, reference, MASK, kl_coefficient=0.3)
    objectives.require_scores_on_last_token(rewards, scores, penalty, MASK)

    on_padding = -penalty
    on_padding[torch.arange(3), MASK.sum(1)] += scores
    wrong_sign = rewards + 2 * penalty
    no_kl_at_the_end = rewards + torch.where(MASK & (torch.arange(5) == MASK.sum(1)[:, None] - 1), penalty, 0)
    for faulty in (on_padding, wrong_sign, no_kl_at_the_end, objectives.rescale_token_rewards(rewards, MASK)):
        with pytest.raises(InvariantError, match="the score is on padding"):
            objectives.require_scores_on_last_token(faulty, scores, penalty, MASK)


# Lengths


def test_mask_sums_equal_lengths() -> None:
    objectives.require_lengths(MASK, torch.tensor([4, 1, 3]))
    with pytest.raises(InvariantError, match=r"row 1 counts 1 tokens, but the response has 2; .* padding token"):
        objectives.require_lengths(MASK, torch.tensor([4, 2, 3]))
    with pytest.raises(ValueError, match="run of True followed by False"):
        objectives.require_lengths(MASK.flip(1), torch.tensor([4, 1, 3]))


def test_a_mask_by_token_id_loses_the_end_token() -> None:
    """Regression: where the padding token is the end token, `ids != pad` leaves the end token out."""
    end = pad = 2
    responses = torch.tensor([[5, 6, end, pad], [7, end, pad, pad]])
    lengths = torch.tensor([3, 2])
    with pytest.raises(InvariantError):
        objectives.require_lengths(responses != pad, lengths)
    objectives.require_lengths(response_mask([3, 2], 4), lengths)


# Finite


@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_named(junk: float) -> None:
    values = noise(3, 5)
    objectives.require_finite(values=values)
    values[1, 2] = values[2, 0] = junk
    with pytest.raises(InvariantError, match=rf"values is {junk} at \(1, 2\) and not finite at 2 of 15 elements"):
        objectives.require_finite(loss=torch.zeros(()), values=values)


def test_a_scalar_that_is_not_finite_is_named() -> None:
    with pytest.raises(InvariantError, match=r"loss is nan at \(\)"):
        objectives.require_finite(loss=torch.tensor(math.nan))


@pytest.mark.parametrize(("coefficient", "size"), [(1000.0, 1.0), (0.05, 1000.0), (1e6, 1e3), (3e30, 1.0)])
def test_large_rewards_are_not_taken_for_misplaced(coefficient: float, size: float) -> None:
    mask = response_mask([1 + row % 5 for row in range(64)], 5)
    logprobs, reference = noise(64, 5, seed=1).float(), noise(64, 5, seed=2).float()
    scores = (size * noise(64, seed=3)).float()
    rewards = objectives.token_rewards(scores, logprobs, reference, mask, kl_coefficient=coefficient)
    penalty = objectives.kl_penalty(logprobs, reference, mask, kl_coefficient=coefficient)
    objectives.require_scores_on_last_token(rewards, scores, penalty, mask)
    with pytest.raises(InvariantError, match="the score is on padding"):
        objectives.require_scores_on_last_token(rewards + 3 * penalty, scores, penalty, mask)


def test_a_misplaced_score_is_found_under_a_large_penalty() -> None:
    logprobs, reference, scores = noise(3, 5, seed=1), noise(3, 5, seed=2), noise(3, seed=3)
    penalty = objectives.kl_penalty(logprobs, reference, MASK, kl_coefficient=1000.0)
    with pytest.raises(InvariantError, match="the score is on padding"):
        objectives.require_scores_on_last_token(-penalty, scores, penalty, MASK)


def test_what_overflows_is_named_as_that() -> None:
    scores, flat = torch.tensor([1.0, math.inf, 0.0]), torch.zeros(3, 5)
    with pytest.raises(InvariantError, match=r"the score is inf at \(1,\): the scorer's scale exceeds"):
        objectives.require_scores_on_last_token(flat, scores, flat, MASK)
    with pytest.raises(InvariantError, match=r"the KL penalty is inf at \(0, 0\): the KL coefficient exceeds"):
        objectives.require_scores_on_last_token(flat, torch.zeros(3), flat + math.inf, MASK)
