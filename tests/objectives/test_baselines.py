"""Advantages without a critic, against numbers worked out by hand, slow loops and identities."""

from collections.abc import Callable

import pytest
import torch
from tests.objectives.examples import noise, response_mask, spoiled
from torch import Tensor

from triphase import objectives

# Two prompts, two and three responses, not side by side; returns 1, 4, 3, 6, 8.
MASK = response_mask([2, 1, 3, 1, 2])
GROUPS = torch.tensor([7, 4, 7, 4, 4])
REWARDS = torch.tensor(
    [[-1.0, 2.0, 0.0], [4.0, 0.0, 0.0], [0.5, 0.5, 2.0], [6.0, 0.0, 0.0], [-2.0, 10.0, 0.0]], dtype=torch.float64
)
RETURNS = [1.0, 4.0, 3.0, 6.0, 8.0]


def batch_mean(rewards: Tensor, mask: Tensor, groups: Tensor) -> objectives.Advantages:
    return objectives.batch_mean_advantages(rewards, mask)


KINDS: dict[str, Callable[[Tensor, Tensor, Tensor], objectives.Advantages]] = {
    "rloo": objectives.leave_one_out_advantages,
    "grpo": objectives.group_standardized_advantages,
    "reinforce": batch_mean,
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # 1 - 3; 4 - (6 + 8)/2; 3 - 1; 6 - (4 + 8)/2; 8 - (4 + 6)/2
        ("rloo", [-2, -3, 2, 0, 3]),
        # means 2 and 6, standard deviations 1 and sqrt(8/3)
        ("grpo", [-1, -2 / (8 / 3) ** 0.5, 1, 0, 2 / (8 / 3) ** 0.5]),
        # the mean of all is 4.4
        ("reinforce", [-3.4, -0.4, -1.4, 1.6, 3.6]),
    ],
)
def test_values_derived_by_hand(kind: str, expected: list[float]) -> None:
    found = KINDS[kind](REWARDS, MASK, GROUPS)
    for row, (advantage, total) in enumerate(zip(expected, RETURNS, strict=True)):
        tokens = int(MASK[row].sum())
        assert found.advantages[row, :tokens].tolist() == pytest.approx([advantage] * tokens, abs=1e-12)
        assert found.returns[row, :tokens].tolist() == pytest.approx([total] * tokens, abs=1e-12)
        assert found.advantages[row, tokens:].abs().sum() == found.returns[row, tokens:].abs().sum() == 0


def slow(kind: str, rewards: Tensor, mask: Tensor, groups: Tensor) -> Tensor:
    totals = [sum(float(r) for r, m in zip(row, counted, strict=True) if m) for row, counted in zip(rewards, mask)]  # noqa: B905
    found = torch.zeros_like(rewards)
    for i, total in enumerate(totals):
        members = [j for j in range(len(totals)) if kind == "reinforce" or groups[j] == groups[i]]
        others = [totals[j] for j in members if j != i]
        mean = sum(totals[j] for j in members) / len(members)
        spread = (sum((totals[j] - mean) ** 2 for j in members) / len(members)) ** 0.5
        advantage = {
            "rloo": total - sum(others) / len(others),
            "grpo": (total - mean) / spread,
            "reinforce": total - mean,
        }[kind]
        found[i] = advantage * mask[i]
    return found


@every_kind
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_a_slow_loop(kind: str, seed: int) -> None:
    mask = response_mask([1, 5, 3, 2, 5, 4, 1, 2, 3, 3, 4, 5], 6)
    rewards = noise(12, 6, seed=seed)
    groups = torch.tensor([3, 0, 3, 9, 9, 0, 0, 3, 9, 9, 3, 0]).roll(seed)
    found = KINDS[kind](rewards, mask, groups).advantages
    assert torch.allclose(found, slow(kind, rewards, mask, groups), atol=1e-12)


@every_kind
def test_an_offset_of_every_return_of_a_prompt_changes_nothing(kind: str) -> None:
    moved = REWARDS.clone()
    moved[:, 0] += 100.0 if kind == "reinforce" else torch.where(GROUPS == 7, 100.0, -3.0)
    found = KINDS[kind](moved, MASK, GROUPS).advantages
    assert torch.allclose(found, KINDS[kind](REWARDS, MASK, GROUPS).advantages, atol=1e-9)


@every_kind
def test_a_scale_of_the_returns_scales_all_but_the_standardized(kind: str) -> None:
    found = KINDS[kind](100 * REWARDS, MASK, GROUPS).advantages
    factor = 1 if kind == "grpo" else 100
    assert torch.allclose(found, factor * KINDS[kind](REWARDS, MASK, GROUPS).advantages, atol=1e-9)


@every_kind
def test_the_order_of_the_responses_does_not_matter(kind: str) -> None:
    order = torch.tensor([4, 2, 0, 3, 1])
    found = KINDS[kind](REWARDS[order], MASK[order], GROUPS[order]).advantages
    assert torch.allclose(found, KINDS[kind](REWARDS, MASK, GROUPS).advantages[order], atol=1e-12)


@every_kind
@pytest.mark.parametrize("value", [0.0, 0.1, 12345.678])
def test_equal_returns_have_no_advantage_at_all(kind: str, value: float) -> None:
    rewards = torch.full((6, 1), value)
    found = KINDS[kind](rewards, torch.ones(6, 1, dtype=torch.bool), torch.tensor([0, 0, 0, 1, 1, 1])).advantages
    assert found.tolist() == [[0.0]] * 6


def test_a_group_that_differs_by_rounding_alone_is_not_blown_up() -> None:
    rewards = torch.tensor([[1.0], [1.0 + 2e-7], [0.0], [3.0]])
    groups, mask = torch.tensor([0, 0, 1, 1]), torch.ones(4, 1, dtype=torch.bool)
    assert objectives.group_standardized_advantages(rewards, mask, groups).advantages.tolist() == [[0], [0], [-1], [1]]
    small = 1e-6 * torch.tensor([[1.0], [2.0], [0.0], [3.0]])  # a small scale of the scores is no rounding
    assert objectives.group_standardized_advantages(small, mask, groups).advantages.flatten().tolist() == pytest.approx(
        [-1, 1, -1, 1]
    )


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([1.0, 1.0 + 4e-6, 0.0, 3.0], [0, 0, -1, 1]),  # 2e-6 apart from their mean: no spread beside that of the batch
        ([1.0, 1.0 + 2e-4, 0.0, 3.0], [-1, 1, -1, 1]),  # 1e-4: little, and a spread all the same
        ([1e3, 1e3 + 1e-4, 1e3 + 2e-4, 1e3 + 3e-4], [0, 0, 0, 0]),  # the rounding of float32 at a thousand
        ([1e3, 1e3 + 1e-2, 1e3 + 2e-2, 1e3 + 3e-2], [-1, 1, -1, 1]),
    ],
)
def test_from_which_spread_on_a_group_is_standardized(returns: list[float], expected: list[float]) -> None:
    rewards = torch.tensor(returns, dtype=torch.float64)[:, None]
    mask, groups = torch.ones(4, 1, dtype=torch.bool), torch.tensor([0, 0, 1, 1])
    found = objectives.group_standardized_advantages(rewards, mask, groups).advantages.flatten().tolist()
    assert found == pytest.approx(expected, abs=1e-6)


@every_kind
def test_equal_returns_whose_sum_rounds_have_no_advantage_either(kind: str) -> None:
    # Seven times 0.1 adds up to a number whose seventh is not 0.1.
    values = [0.1] * 7 if kind == "reinforce" else [0.1] * 7 + [12345.678] * 7
    rewards = torch.tensor(values, dtype=torch.float64)[:, None]
    mask, groups = torch.ones(len(values), 1, dtype=torch.bool), torch.arange(len(values)) // 7
    assert KINDS[kind](rewards, mask, groups).advantages.flatten().tolist() == [0.0] * len(values)


@every_kind
def test_rewards_of_tokens_are_added_in_double_precision(kind: str) -> None:
    rewards = torch.tensor([[2.0**25, 1.0, -(2.0**25)], [0.0, 0.0, 0.0]])
    found = KINDS[kind](rewards, torch.ones(2, 3, dtype=torch.bool), torch.tensor([0, 0]))
    assert found.returns[:, 0].tolist() == [1.0, 0.0] and float(found.advantages[0, 0]) > 0


def test_one_group_is_the_batch_mean_but_for_the_step_length() -> None:
    everyone = torch.zeros(5, dtype=torch.int64)
    one = objectives.leave_one_out_advantages(REWARDS, MASK, everyone).advantages
    other = objectives.batch_mean_advantages(REWARDS, MASK).advantages
    assert torch.allclose(one * 4 / 5, other, atol=1e-12)


@every_kind
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 7.0])
def test_padding_does_not_count(kind: str, junk: float) -> None:
    found = KINDS[kind](spoiled(REWARDS, MASK, junk), MASK, GROUPS)
    assert torch.equal(found.advantages, KINDS[kind](REWARDS, MASK, GROUPS).advantages)
    assert torch.equal(found.returns, KINDS[kind](REWARDS, MASK, GROUPS).returns)


@every_kind
def test_types(kind: str) -> None:
    for given, wanted in ((torch.bfloat16, torch.float32), (torch.float32, torch.float32)):
        found = KINDS[kind](REWARDS.to(given), MASK, GROUPS)
        assert found.advantages.dtype == found.returns.dtype == wanted


@pytest.mark.parametrize("kind", ["rloo", "grpo"])
def test_wrong_groups_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="prompt 5 has one"):
        KINDS[kind](REWARDS, MASK, torch.tensor([7, 4, 7, 5, 4]))
    with pytest.raises(ValueError, match="groups must be int64"):
        KINDS[kind](REWARDS, MASK, GROUPS.float())
    with pytest.raises(ValueError, match="groups"):
        KINDS[kind](REWARDS, MASK, GROUPS[:4])


@every_kind
def test_wrong_input_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="mask"):
        KINDS[kind](REWARDS, MASK.flip(1), GROUPS)
    with pytest.raises(ValueError, match="token_rewards"):
        KINDS[kind](REWARDS.clone().requires_grad_(), MASK, GROUPS)
    with pytest.raises(ValueError, match="mask"):
        KINDS[kind](REWARDS, MASK[:, :2], GROUPS)
