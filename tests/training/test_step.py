"""One optimizer step: schedule, clipping, and gradients that are not finite."""

import math

import pytest
import torch
from torch import nn

from triphase.errors import TrainingError
from triphase.settings.phases import OptimizerSettings
from triphase.training import step as step_module
from triphase.training.step import Updater, is_fused, schedule_factor


def settings(**values: object) -> OptimizerSettings:
    return OptimizerSettings(**{"learning_rate": 0.1, **values})


def updater(adapter: nn.Parameter, head: nn.Parameter | None = None, *, steps: int = 10, **values: object) -> Updater:
    return Updater({"a": adapter}, {} if head is None else {"h": head}, settings(**values), total_steps=steps)


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


def step(subject: Updater, *gradients: tuple[float, ...]):
    for trained, gradient in zip(subject.parameters.values(), gradients, strict=True):
        trained.grad = torch.tensor(gradient)
    return subject.step()


# The schedule


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0.0, [1, 1, 1, 1]),
        ("linear", 0.0, [1, 0.75, 0.5, 0.25]),
        ("cosine", 0.0, [1, 0.5 + math.sqrt(0.5) / 2, 0.5, 0.5 - math.sqrt(0.5) / 2]),
        ("constant", 0.5, [1 / 3, 2 / 3, 1, 1]),
        ("linear", 0.5, [1 / 3, 2 / 3, 1, 0.5]),
        ("cosine", 0.5, [1 / 3, 2 / 3, 1, 0.5]),
    ],
)
def test_the_schedule_by_hand(schedule: str, warmup: float, expected: list[float]) -> None:
    chosen = settings(schedule=schedule, warmup_share=warmup)
    assert [schedule_factor(chosen, place, 4) for place in range(4)] == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("total", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.3, 1.0])
def test_no_step_is_without_a_rate_and_none_is_above_the_peak(schedule: str, total: int, warmup: float) -> None:
    chosen = settings(schedule=schedule, warmup_share=warmup)
    factors = [schedule_factor(chosen, place, total) for place in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    rising = math.ceil(warmup * total)
    assert factors[:rising] == sorted(factors[:rising])
    assert factors[rising:] == sorted(factors[rising:], reverse=True)


def test_after_the_planned_steps_the_rate_stays_where_it_ended() -> None:
    assert schedule_factor(settings(schedule="linear"), 12, 10) == 0
    assert schedule_factor(settings(schedule="cosine"), 12, 10) == pytest.approx(0, abs=1e-12)


def test_adapters_and_heads_follow_the_schedule_each_from_its_own_peak() -> None:
    # Adam's first step moves by the rate whatever the gradient; with a constant gradient so does every later one.
    adapter, head = parameter(0.0), parameter(0.0)
    subject = updater(adapter, head, steps=4, head_learning_rate=0.3, schedule="linear", adam_epsilon=1e-12)
    expected = 0.0
    for place in range(4):
        result = step(subject, (0.5,), (0.5,))
        expected -= 1 - place / 4
        assert result.learning_rate == pytest.approx(0.1 * (1 - place / 4))
        assert float(adapter.detach()) == pytest.approx(0.1 * expected, rel=1e-4)
        assert float(head.detach()) == pytest.approx(0.3 * expected, rel=1e-4)


def test_a_head_without_a_rate_of_its_own_has_the_adapters() -> None:
    adapter, head = parameter(0.0), parameter(0.0)
    step(updater(adapter, head), (1.0,), (1.0,))
    assert torch.equal(adapter, head)


def test_a_scaled_rate_scales_both() -> None:
    adapter, head = parameter(0.0), parameter(0.0)
    subject = updater(adapter, head, head_learning_rate=0.3, adam_epsilon=1e-12)
    subject.rate_scale = 0.5
    assert step(subject, (1.0,), (1.0,)).learning_rate == pytest.approx(0.05)
    assert (float(adapter.detach()), float(head.detach())) == pytest.approx((-0.05, -0.15))


# Against torch's own optimizer, step by step


def test_steps_are_those_of_adamw_with_clipping() -> None:
    ours, theirs = (nn.Parameter(torch.tensor([1.0, -2.0, 3.0])) for _ in range(2))
    values = {"schedule": "constant", "adam_betas": (0.8, 0.95), "adam_epsilon": 1e-3, "weight_decay": 0.02}
    subject = updater(ours, **values, max_gradient_norm=0.7)
    optimizer = torch.optim.AdamW([theirs], lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.02)
    draw = torch.Generator().manual_seed(0)
    for _ in range(5):
        gradient = torch.randn(3, generator=draw)
        norm = float(gradient.norm())
        ours.grad, theirs.grad = gradient.clone(), gradient * min(1.0, 0.7 / norm)
        assert subject.step().gradient_norm == pytest.approx(norm, rel=1e-6)
        optimizer.step()
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)


def test_the_norm_is_taken_over_adapters_and_heads_together_before_clipping() -> None:
    adapter, head = parameter(0.0), parameter(0.0)
    subject = updater(adapter, head, adam_betas=(0.0, 0.0), adam_epsilon=1e8)  # a step is then rate · gradient / 1e8
    result = step(subject, (3.0,), (4.0,))
    assert result.gradient_norm == pytest.approx(5.0)
    assert (float(adapter.detach()) * -1e9, float(head.detach()) * -1e9) == pytest.approx((0.6, 0.8), rel=1e-3)


def test_a_gradient_below_the_limit_is_left_as_it_is() -> None:
    adapter = parameter(0.0)
    step(updater(adapter, adam_betas=(0.0, 0.0), adam_epsilon=1e8), (0.5,))
    assert float(adapter.detach()) * -1e9 == pytest.approx(0.5, rel=1e-3)


def test_gradients_are_cleared_after_a_step_and_on_discard() -> None:
    adapter = parameter(0.0)
    subject = updater(adapter)
    step(subject, (1.0,))
    assert adapter.grad is None
    adapter.grad = torch.tensor([1.0])
    subject.discard()
    assert adapter.grad is None and subject.step_count == 1


# What is not finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(bad: float) -> None:
    adapter, head = parameter(1.0, 2.0), parameter(3.0)
    subject = updater(adapter, head, weight_decay=0.1)
    step(subject, (0.1, 0.2), (0.3,))
    before = {name: tensor.clone() for name, tensor in subject.tensors().items()}
    result = step(subject, (0.1, bad), (0.3,))
    assert result.skipped and not math.isfinite(result.gradient_norm)
    assert result.nonfinite == ("the gradient of a",)
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.tensors().items())
    assert (subject.step_count, subject.skipped_in_a_row) == (2, 1)
    assert adapter.grad is None and head.grad is None
    assert not step(subject, (0.1, 0.2), (0.3,)).skipped
    assert subject.skipped_in_a_row == 0


def test_five_in_a_row_stop_the_training_and_four_do_not() -> None:
    subject = updater(parameter(1.0))
    for _ in range(2):
        for _ in range(4):
            assert step(subject, (math.nan,)).skipped
        step(subject, (1.0,))
    for _ in range(4):
        step(subject, (math.nan,))
    with pytest.raises(TrainingError, match=r"the gradient of a: not finite 5 steps in a row.*learning_rate.*float32"):
        step(subject, (math.nan,))


def test_a_refused_step_counts_and_changes_nothing() -> None:
    adapter = parameter(1.0)
    subject = updater(adapter)
    adapter.grad = torch.tensor([1.0])
    result = subject.skip_step(["the loss"])
    assert result.skipped and result.nonfinite == ("the loss",) and math.isnan(result.gradient_norm)
    assert adapter.grad is None and float(adapter.detach()) == 1
    assert (subject.step_count, subject.skipped_in_a_row) == (1, 1)


# What a checkpoint keeps


def test_tensors_hold_parameters_and_moments_and_go_on_to_the_same_bits() -> None:
    def trained(steps: int, subject: Updater | None = None) -> Updater:
        subject = subject or updater(parameter(1.0, -1.0), parameter(2.0), head_learning_rate=0.2)
        for place in range(steps):
            step(subject, (0.1 * place, 0.3), (-0.2,))
        return subject

    first = trained(3)
    kept = {name: tensor.clone() for name, tensor in first.tensors().items()}
    assert set(kept) == {f"{kind}.{name}" for kind in ("parameter", "step", "exp_avg", "exp_avg_sq") for name in "ah"}
    fresh = updater(parameter(0.0, 0.0), parameter(0.0), head_learning_rate=0.2)
    fresh.load_tensors(kept)
    fresh.step_count = first.step_count
    expected = trained(4, first).tensors()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in trained(4, fresh).tensors().items())


def test_offloaded_moments_of_a_parameter_without_a_gradient_are_absent_and_stay_so() -> None:
    """A checkpoint in between looks at the state of every parameter."""
    used, unused = parameter(1.0), parameter(2.0)
    subject = Updater({"a": used, "b": unused}, {}, settings(), total_steps=10, offload=True)
    for _ in range(2):
        used.grad = torch.tensor([0.5])
        subject.step()
        assert not any(name.endswith(".b") for name in subject.tensors() if name.startswith("exp_avg"))
    assert subject.step_count == 2 and unused.tolist() == [2.0]


def test_without_moments_the_optimizer_begins_anew() -> None:
    subject = updater(parameter(1.0))
    start = {name: tensor.clone() for name, tensor in subject.tensors().items()}
    step(subject, (1.0,))
    subject.load_tensors(start)
    assert set(subject.tensors()) == {"parameter.a"}
    assert float(subject.parameters["a"].detach()) == 1


# One kernel for all parameters, as on a CUDA device


def test_fused_steps_are_those_of_the_plain_ones_and_go_on_from_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = [(0.3, -2.0), (1.0, 0.5), (-0.7, 0.1)]
    plain = updater(parameter(1.0, 2.0))
    for gradient in gradients:
        step(plain, gradient)
    assert not is_fused(plain.parameters)
    monkeypatch.setattr(step_module, "is_fused", lambda parameters: True)
    fused = updater(parameter(1.0, 2.0))
    for gradient in gradients[:2]:
        step(fused, gradient)
    again = updater(parameter(0.0, 0.0))
    again.load_tensors({name: value.clone() for name, value in fused.tensors().items()})
    again.step_count = fused.step_count
    for each in (fused, again):
        step(each, gradients[2])
    assert torch.equal(again.parameters["a"], fused.parameters["a"])
    assert torch.allclose(fused.parameters["a"], plain.parameters["a"], atol=1e-6)


def test_parameters_of_a_card_are_stepped_by_one_kernel() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        there = {"a": nn.Parameter(torch.empty(2, device="cuda"))}
        assert is_fused(there) and not is_fused({**there, "b": nn.Parameter(torch.empty(2))})
