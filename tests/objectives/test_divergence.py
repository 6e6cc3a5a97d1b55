import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.objectives.examples import noise, response_mask, spoiled
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from triphase import objectives

POLICY = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
REFERENCE = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64)
KL = 0.0252672
Estimator = Callable[[Tensor, Tensor], Tensor]
ESTIMATORS: list[Estimator] = [objectives.kl_k1, objectives.kl_k2, objectives.kl_k3]


# The table of a discrete distribution


@pytest.mark.parametrize(
    ("estimator", "mean", "deviation"),
    [
        (objectives.kl_k1, KL, 0.221554),
        (objectives.kl_k2, 0.0248624, 0.0143347),
        (objectives.kl_k3, KL, 0.0159560),
    ],
)
def test_mean_and_deviation(estimator: Estimator, mean: float, deviation: float) -> None:
    estimates = estimator(POLICY.log(), REFERENCE.log())
    found = (POLICY * estimates).sum()
    assert found.item() == pytest.approx(mean, abs=1e-7)
    assert (POLICY * (estimates - found).square()).sum().sqrt().item() == pytest.approx(deviation, abs=1e-6)


def in_reward(estimator: Estimator, logits: Tensor) -> Tensor:
    """The expected policy gradient of the estimator as a penalty: E[k · ∇log π], k held fixed."""
    logprobs = logits.log_softmax(0)
    penalty = estimator(logprobs.detach(), REFERENCE.log())
    return (POLICY * penalty * logprobs).sum()


def as_loss(estimator: Estimator, logits: Tensor) -> Tensor:
    """The expected gradient of the estimator itself, the samples held fixed: E[∇k]."""
    return (POLICY * estimator(logits.log_softmax(0), REFERENCE.log())).sum()


TRUE_GRADIENT = [0.098938, -0.093885, -0.005053]


@pytest.mark.parametrize(
    ("use", "estimator", "gradient"),
    [
        (in_reward, objectives.kl_k1, TRUE_GRADIENT),
        (in_reward, objectives.kl_k2, [0.000017, 0.004955, -0.004972]),
        (in_reward, objectives.kl_k3, [-0.001062, 0.006115, -0.005053]),
        (as_loss, objectives.kl_k1, [0.0, 0.0, 0.0]),
        (as_loss, objectives.kl_k2, TRUE_GRADIENT),
        (as_loss, objectives.kl_k3, [0.1, -0.1, 0.0]),
    ],
)
def test_gradient(use: Callable[[Estimator, Tensor], Tensor], estimator: Estimator, gradient: list[float]) -> None:
    logits = POLICY.log().requires_grad_()
    (found,) = torch.autograd.grad(use(estimator, logits), logits)
    assert found.tolist() == pytest.approx(gradient, abs=1e-6)


def test_the_true_gradient_is_that_of_the_exact_divergence() -> None:
    logits = POLICY.log().requires_grad_()
    (found,) = torch.autograd.grad(objectives.full_kl(logits, REFERENCE.log(), 1.0), logits)
    assert found.tolist() == pytest.approx(TRUE_GRADIENT, abs=1e-6)


# Schulman's table: a normal policy N(0, 1) and a reference N(shift, 1)


@pytest.mark.parametrize(
    ("shift", "kl", "bias", "deviations"),
    [(0.1, 0.005, 0.002, [20, 1.42, 1.42]), (1.0, 0.5, 0.25, [2, 1.73, 1.7])],
)
def test_schulmans_table(shift: float, kl: float, bias: float, deviations: list[float]) -> None:
    x = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    weights = (-x.square() / 2).exp()
    weights /= weights.sum()
    policy, reference = -x.square() / 2, -(x - shift).square() / 2
    for estimator, deviation, biased in zip(ESTIMATORS, deviations, [0, bias, 0], strict=True):
        estimates = estimator(policy, reference)
        mean = (weights * estimates).sum()
        assert mean.item() == pytest.approx(kl * (1 + biased), rel=2e-3)
        spread = (weights * (estimates - mean).square()).sum().sqrt() / kl
        assert spread.item() == pytest.approx(deviation, rel=6e-3)


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_k2_and_k3_are_never_negative(one: float, other: float) -> None:
    pair = torch.tensor([one], dtype=torch.float64), torch.tensor([other], dtype=torch.float64)
    assert objectives.kl_k2(*pair).item() >= 0
    assert objectives.kl_k3(*pair).item() >= 0
    assert objectives.kl_k1(*pair).item() == pytest.approx(one - other)


def test_k3_keeps_small_divergences_in_float32() -> None:
    found = objectives.kl_k3(torch.tensor([1e-4]), torch.tensor([0.0]))
    assert found.item() == pytest.approx(5e-9, rel=1e-3)


# The exact divergence


def test_full_kl_agrees_with_torch() -> None:
    policy, reference = noise(2, 3, 8, seed=1), noise(2, 3, 8, seed=2)
    expected = kl_divergence(Categorical(logits=policy / 0.7), Categorical(logits=reference / 0.7))
    assert torch.allclose(objectives.full_kl(policy, reference, 0.7), expected, atol=1e-12)
    assert objectives.full_kl(POLICY.log(), REFERENCE.log(), 1.0).item() == pytest.approx(KL, abs=1e-7)
    assert not objectives.full_kl(policy, policy, 1.0).any()


# Per response

MASK = response_mask([3, 1], 4)


def test_reference_kl_sums_over_tokens_and_averages_over_responses() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -3.0, 9.0], [-0.5, 9.0, 9.0, 9.0]])
    reference = torch.tensor([[-1.5, -2.0, -2.5, 0.0], [-2.5, 0.0, 0.0, 0.0]])
    assert objectives.reference_kl(logprobs, reference, MASK).item() == pytest.approx((0.5 + 0 - 0.5 + 2) / 2)


@pytest.mark.parametrize("junk", [1.0, float("nan"), float("inf")])
def test_padding_does_not_enter_the_reference_kl(junk: float) -> None:
    logprobs, reference = noise(2, 4, seed=1), noise(2, 4, seed=2)
    wanted = objectives.reference_kl(logprobs, reference, MASK)
    assert torch.equal(objectives.reference_kl(spoiled(logprobs, MASK, junk), reference, MASK), wanted)


def test_bad_input() -> None:
    for estimator in ESTIMATORS:
        with pytest.raises(ValueError, match="shape"):
            estimator(POLICY, REFERENCE[:2])
    with pytest.raises(ValueError, match="shape"):
        objectives.full_kl(POLICY, REFERENCE[:2], 1.0)
    with pytest.raises(ValueError, match="temperature"):
        objectives.full_kl(POLICY, REFERENCE, 0.0)
    with pytest.raises(ValueError, match=r"row \[1\]"):
        objectives.reference_kl(noise(2, 4), noise(2, 4), response_mask([3, 0], 4))
    with pytest.raises(ValueError, match="with B = 2 as in logprobs"):  # one row would be taken for all
        objectives.reference_kl(noise(2, 4), noise(1, 4), MASK)


# Controllers


@pytest.mark.parametrize(
    ("observed", "coefficient"),
    [(12, 0.151536), (7.2, 0.151536), (6.6, 0.15 * (1 + 0.1 * 0.0512)), (6, 0.15), (3, 0.148464), (-1, 0.148464)],
)
def test_adaptive_coefficient(observed: float, coefficient: float) -> None:
    controller = objectives.AdaptiveKL(target=6, horizon=10_000)
    assert controller.next_coefficient(0.15, observed, 512) == pytest.approx(coefficient, abs=1e-9)


def test_adaptive_coefficient_finds_the_target() -> None:
    controller, coefficient = objectives.AdaptiveKL(target=6, horizon=10_000), 0.01
    for _ in range(1000):
        observed = 1.2 / coefficient  # a policy that goes the further the less it costs
        coefficient = controller.next_coefficient(coefficient, observed, 512)
    assert coefficient == pytest.approx(0.2, rel=1e-3)


def test_fixed_coefficient() -> None:
    assert objectives.FixedKL().next_coefficient(0.05, 1e9, 512) == 0.05


def test_bad_controllers() -> None:
    with pytest.raises(ValueError, match="target must be above 0"):
        objectives.AdaptiveKL(target=0, horizon=10)
    with pytest.raises(ValueError, match="horizon must be above 0"):
        objectives.AdaptiveKL(target=6, horizon=-1)
    controller = objectives.AdaptiveKL(target=6, horizon=100)
    with pytest.raises(ValueError, match="horizon must be above 102"):
        controller.next_coefficient(0.15, 6, 512)
    with pytest.raises(ValueError, match="observed_kl is nan"):
        controller.next_coefficient(0.15, math.nan, 5)
    with pytest.raises(ValueError, match="current must be above 0"):
        controller.next_coefficient(0.0, 6, 5)
