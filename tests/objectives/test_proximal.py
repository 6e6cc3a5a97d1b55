import math
from typing import Any

import pytest
import torch
from tests.objectives.examples import noise, response_mask, spoiled
from torch import Tensor

from triphase import objectives

MASK = response_mask([4, 1, 3], 5)
ONE = torch.ones(1, dtype=torch.bool)


def one_token(ratio: float, advantage: float, clip_range: float = 0.2) -> tuple[float, objectives.PolicyMetrics, float]:
    """Loss, metrics and the slope of the loss by the log-probability of one token."""
    logprobs = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    loss, metrics = objectives.clipped_policy_loss(
        logprobs,
        torch.zeros(1, dtype=torch.float64),
        torch.tensor([advantage], dtype=torch.float64),
        ONE,
        clip_range=clip_range,
    )
    (slope,) = torch.autograd.grad(loss, logprobs)
    return loss.item(), metrics, slope.item()


def batch(seed: int = 0) -> dict[str, Any]:
    rollout = noise(3, 5, seed=seed)
    return {
        "logprobs": rollout + 0.3 * noise(3, 5, seed=seed + 1),
        "rollout_logprobs": rollout,
        "advantages": noise(3, 5, seed=seed + 2),
        "mask": MASK,
        "clip_range": 0.2,
    }


# The clipped policy loss


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (math.e, 1, -1.2, True),
        (1 / math.e, 1, -0.36787944, False),
        (1.5, 1, -1.2, True),
        (math.e, -1, math.e, False),
        (1 / math.e, -1, 0.8, True),
        (1.5, -1, 1.5, False),
        (1.1, 1, -1.1, False),
        (0.9, -1, 0.9, False),
        (1.5, 0, 0.0, False),
    ],
)
def test_one_token(ratio: float, advantage: float, loss: float, clipped: bool) -> None:
    found, metrics, slope = one_token(ratio, advantage)
    assert found == pytest.approx(loss, abs=1e-7)
    assert metrics.clip_fraction.item() == clipped
    assert metrics.ratio_mean.item() == metrics.ratio_max.item() == pytest.approx(ratio)
    assert metrics.approximate_kl.item() == pytest.approx(ratio - 1 - math.log(ratio), abs=1e-9)
    assert slope == pytest.approx(0 if clipped else -ratio * advantage, abs=1e-9)


@pytest.mark.parametrize(("sign", "loss"), [(1, -0.1711778), (-1, 0.1933333)])
def test_batch_of_rlax(sign: int, loss: float) -> None:
    logits = torch.tensor([[1.0, 1, 1], [2, 0, 0], [-1, -2, -3]])
    rollout_logits = torch.tensor([[1.0, 1, 1], [2, 0, 0], [-3, -2, -1]])
    actions = torch.tensor([0, 1, 2])
    found, _ = objectives.clipped_policy_loss(
        objectives.token_logprobs(logits, actions, 1.0),
        objectives.token_logprobs(rollout_logits, actions, 1.0),
        sign * torch.tensor([0.3, 0.2, 0.1]),
        torch.ones(3, dtype=torch.bool),
        clip_range=0.2,
    )
    assert found.item() == pytest.approx(loss, abs=1e-6)


def slow_policy_loss(
    logprobs: Tensor, rollout_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_range: float
) -> float:
    total, count = 0.0, 0
    for new, old, advantage, counts in zip(
        *(x.flatten().tolist() for x in (logprobs, rollout_logprobs, advantages, mask)), strict=True
    ):
        if counts:
            ratio = math.exp(new - old)
            limited = min(max(ratio, 1 - clip_range), 1 + clip_range)
            total += min(ratio * advantage, limited * advantage)
            count += 1
    return -total / count


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_a_slow_loop(seed: int) -> None:
    given = batch(seed)
    assert objectives.clipped_policy_loss(**given)[0].item() == pytest.approx(slow_policy_loss(**given), abs=1e-12)


def test_metrics_agree_with_a_slow_loop_over_real_tokens() -> None:
    """Regression: means over padding dilute every metric of PPO."""
    given = batch()
    _, metrics = objectives.clipped_policy_loss(**given)
    pairs = list(
        zip(
            (given["logprobs"] - given["rollout_logprobs"])[MASK].tolist(),
            given["advantages"][MASK].tolist(),
            strict=True,
        )
    )
    ratios = [math.exp(log_ratio) for log_ratio, _ in pairs]
    clipped = [(a > 0 and math.exp(r) > 1.2) or (a < 0 and math.exp(r) < 0.8) for r, a in pairs]
    assert metrics.token_count == len(pairs) == 8
    assert metrics.ratio_mean.item() == pytest.approx(sum(ratios) / 8)
    assert metrics.ratio_max.item() == pytest.approx(max(ratios))
    assert metrics.clip_fraction.item() == pytest.approx(sum(clipped) / 8)
    assert 0 < sum(clipped) < 8
    assert metrics.approximate_kl.item() == pytest.approx(sum(math.exp(r) - 1 - r for r, _ in pairs) / 8)


def test_the_largest_ratio_is_of_real_tokens_also_where_all_are_below_1() -> None:
    """The ratio of padding is 1; it must not be the largest."""
    given = batch()
    lower = torch.where(MASK, given["rollout_logprobs"] - 0.5, given["rollout_logprobs"])
    _, metrics = objectives.clipped_policy_loss(**{**given, "logprobs": lower})
    assert metrics.ratio_max.item() == pytest.approx(math.exp(-0.5))


def test_at_ratio_1_it_is_the_policy_gradient() -> None:
    given = batch()
    logprobs = given["rollout_logprobs"].clone().requires_grad_()
    loss, metrics = objectives.clipped_policy_loss(**{**given, "logprobs": logprobs})
    loss.backward()
    assert loss.item() == pytest.approx(-given["advantages"][MASK].mean().item(), abs=1e-12)
    assert torch.allclose(logprobs.grad, torch.where(MASK, -given["advantages"] / 8, 0))
    assert metrics.ratio_mean.item() == metrics.ratio_max.item() == 1
    assert metrics.clip_fraction.item() == metrics.approximate_kl.item() == 0
    assert not metrics.ratio_mean.requires_grad


@pytest.mark.parametrize("junk", [3.0, 1e9, float("nan"), float("-inf")])
def test_padding_changes_neither_loss_nor_metrics_nor_gradient(junk: float) -> None:
    clean = batch()
    dirty = {name: spoiled(x, MASK, junk) if name in ("logprobs", "advantages") else x for name, x in clean.items()}
    results = []
    for given in (clean, dirty):
        logprobs = given["logprobs"].clone().requires_grad_()
        loss, metrics = objectives.clipped_policy_loss(**{**given, "logprobs": logprobs})
        loss.backward()
        results.append((loss.detach(), metrics, logprobs.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert torch.equal(results[0][2], results[1][2])


def test_a_runaway_log_ratio_does_not_overflow() -> None:
    logprobs = torch.tensor([500.0, 0.0], requires_grad=True)
    loss, metrics = objectives.clipped_policy_loss(
        logprobs, torch.zeros(2), torch.tensor([-1.0, 1.0]), torch.ones(2, dtype=torch.bool), clip_range=0.2
    )
    loss.backward()
    objectives.require_finite(loss=loss.detach(), gradient=logprobs.grad, kl=metrics.approximate_kl)
    assert metrics.ratio_max.item() == pytest.approx(math.exp(20))


# The clipped value loss


@pytest.mark.parametrize(
    ("value", "rollout_value", "target", "clip_range", "loss", "clipped"),
    [
        (1.0, 0.0, 3.0, None, 2.0, False),
        (1.0, 0.0, 3.0, 0.2, 0.5 * 2.8**2, True),  # moved too far towards the return: as if it had moved by .2
        (1.0, 0.9, 3.0, 0.2, 2.0, False),
        (-1.0, 0.0, 3.0, 0.2, 8.0, False),  # moved away: the true error is worse and stays
        (4.0, 3.0, 3.0, 0.2, 0.5, False),
    ],
)
def test_one_value(
    value: float, rollout_value: float, target: float, clip_range: float | None, loss: float, clipped: bool
) -> None:
    values = torch.tensor([value], requires_grad=True)
    found, metrics = objectives.clipped_value_loss(
        values, torch.tensor([rollout_value]), torch.tensor([target]), ONE, clip_range=clip_range
    )
    (slope,) = torch.autograd.grad(found, values)
    assert found.item() == pytest.approx(loss)
    assert slope.item() == pytest.approx(0 if clipped else value - target)
    assert metrics.clip_fraction.item() == clipped
    assert metrics.squared_error.item() == pytest.approx((value - target) ** 2)


def test_value_loss_agrees_with_a_slow_loop() -> None:
    values, rollout, returns = noise(3, 5, seed=1), noise(3, 5, seed=2), noise(3, 5, seed=3)
    found, metrics = objectives.clipped_value_loss(values, rollout, returns, MASK, clip_range=0.5)
    losses, errors = [], []
    for v, old, target in zip(*(x[MASK].tolist() for x in (values, rollout, returns)), strict=True):
        limited = min(max(v, old - 0.5), old + 0.5)
        losses.append(0.5 * max((v - target) ** 2, (limited - target) ** 2))
        errors.append((v - target) ** 2)
    assert found.item() == pytest.approx(sum(losses) / 8, abs=1e-12)
    assert metrics.squared_error.item() == pytest.approx(sum(errors) / 8, abs=1e-12)
    assert metrics.token_count == 8


@pytest.mark.parametrize("junk", [3.0, float("nan")])
@pytest.mark.parametrize("clip_range", [0.2, None])
def test_padding_does_not_enter_the_value_loss(junk: float, clip_range: float | None) -> None:
    tensors = noise(3, 5, seed=1), noise(3, 5, seed=2), noise(3, 5, seed=3)
    wanted, _ = objectives.clipped_value_loss(*tensors, MASK, clip_range=clip_range)
    values, *constants = (spoiled(x, MASK, junk) for x in tensors)
    values.requires_grad_()
    found, metrics = objectives.clipped_value_loss(values, *constants, MASK, clip_range=clip_range)
    found.backward()
    assert found.item() == wanted.item()
    objectives.require_finite(gradient=values.grad, error=metrics.squared_error)
    assert not values.grad[~MASK].any()


# Microbatches


@pytest.mark.parametrize("size", [1, 2])
def test_microbatches_add_up_to_the_step(size: int) -> None:
    """Regression: means of microbatches weigh the tokens of short responses more."""
    given = batch()
    policy = [given["logprobs"], given["rollout_logprobs"], given["advantages"]]
    rows = [torch.arange(3)[i : i + size] for i in range(0, 3, size)]

    def total(function: Any, tensors: list[Tensor], **options: Any) -> float:
        parts = [function(*(x[i] for x in tensors), MASK[i], token_count=8, **options) for i in rows]
        return float(sum(part[0] if isinstance(part, tuple) else part for part in parts))

    assert total(objectives.clipped_policy_loss, policy, clip_range=0.2) == pytest.approx(
        objectives.clipped_policy_loss(*policy, MASK, clip_range=0.2)[0].item(), abs=1e-12
    )
    assert total(objectives.clipped_value_loss, policy, clip_range=0.2) == pytest.approx(
        objectives.clipped_value_loss(*policy, MASK, clip_range=0.2)[0].item(), abs=1e-12
    )
    assert total(objectives.entropy_bonus, policy[:1]) == pytest.approx(
        objectives.entropy_bonus(policy[0], MASK).item(), abs=1e-12
    )


def test_metrics_of_microbatches_combine_by_their_tokens() -> None:
    given = batch()
    _, whole = objectives.clipped_policy_loss(**given)
    parts = [
        objectives.clipped_policy_loss(
            **{name: x[i : i + 1] if isinstance(x, Tensor) else x for name, x in given.items()}, token_count=8
        )[1]
        for i in range(3)
    ]
    for name in ("ratio_mean", "clip_fraction", "approximate_kl"):
        combined = sum(getattr(part, name).item() * part.token_count for part in parts) / 8
        assert combined == pytest.approx(getattr(whole, name).item(), abs=1e-7)


# The whole objective


def test_entropy_bonus_is_a_mean_over_real_tokens() -> None:
    entropy = spoiled(noise(3, 5), MASK, float("nan"))
    assert objectives.entropy_bonus(entropy, MASK).item() == pytest.approx(entropy[MASK].mean().item())


def test_composite_objective() -> None:
    parts = [torch.tensor(x, requires_grad=True) for x in (2.0, 3.0, 5.0)]
    found = objectives.composite_objective(*parts, value_coefficient=0.1, entropy_coefficient=0.01)
    assert found.item() == pytest.approx(2 + 0.3 - 0.05)
    assert [g.item() for g in torch.autograd.grad(found, parts)] == pytest.approx([1, 0.1, -0.01])
    without = objectives.composite_objective(*parts, value_coefficient=0.0, entropy_coefficient=0.0)
    assert without.item() == 2


# The fit of the critic


def test_explained_variance() -> None:
    returns = torch.tensor([[1.0, 2.0, 3.0, 9.0]])
    mask = response_mask([3], 4)
    for values, expected in [
        ([1.0, 2.0, 3.0, 0.0], 1.0),
        ([2.0, 2.0, 2.0, 0.0], 0.0),
        ([5.0, 6.0, 7.0, 0.0], 1.0),  # a constant error is no variance
        ([3.0, 2.0, 1.0, 0.0], -3.0),
        ([1.5, 2.0, 2.5, float("nan")], 0.75),
    ]:
        found = objectives.explained_variance(torch.tensor([values]), returns, mask)
        assert found is not None
        assert found.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
def test_explained_variance_of_equal_returns_is_absent(value: float) -> None:
    returns = torch.full((1, 1000), value)
    rounding = returns * (1 + 3e-8 * torch.tensor([-1.0, 1.0]).repeat(500))
    mask = torch.ones(1, 1000, dtype=torch.bool)
    assert objectives.explained_variance(torch.randn(1, 1000), returns, mask) is None
    assert objectives.explained_variance(torch.randn(1, 1000), rounding, mask) is None


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_range": 0.0}, "clip_range must lie between"),
        ({"clip_range": 1.0}, "clip_range must lie between"),
        ({"mask": torch.zeros(3, 5, dtype=torch.bool)}, "selects no element"),
        ({"mask": MASK.float()}, "must be bool"),
        ({"token_count": 3}, "whole optimizer step"),
        ({"advantages": noise(3, 4)}, "advantages must have the shape"),
        ({"advantages": noise(3, 5).requires_grad_()}, "advantages must be constant"),
        ({"rollout_logprobs": noise(3, 5).requires_grad_()}, "rollout_logprobs must be constant"),
    ],
)
def test_bad_policy_input(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        objectives.clipped_policy_loss(**{**batch(), **change})


def test_bad_value_and_composite_input() -> None:
    x = noise(3, 5)
    with pytest.raises(ValueError, match="returns must be constant"):
        objectives.clipped_value_loss(x, x, x.clone().requires_grad_(), MASK, clip_range=None)
    with pytest.raises(ValueError, match="clip_range must be above 0"):
        objectives.clipped_value_loss(x, x, x, MASK, clip_range=0.0)
    with pytest.raises(ValueError, match="value_loss must be a scalar"):
        objectives.composite_objective(x.sum(), x, x.sum(), value_coefficient=1.0, entropy_coefficient=0.0)
    with pytest.raises(ValueError, match="entropy_coefficient must not be negative"):
        objectives.composite_objective(x.sum(), x.sum(), x.sum(), value_coefficient=1.0, entropy_coefficient=-1.0)
