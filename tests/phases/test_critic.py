"""A critic with its own adapter: its inputs, who learns when, how it starts, resumes and is stored."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from tests.phases.test_ppo import (
    Lines,
    gradients,
    moved,
    phase,
    resumed_after_cuts,
    rolled_out,
    settings,
    whole_state,
)
from tests.phases.test_ppo_contract import phase as tiny_phase
from tests.phases.test_ppo_contract import settings as tiny_settings
from tests.phases.test_ppo_contract import shared_model as tiny_model
from tests.small import shared_model, stir

from triphase.errors import TrainingError
from triphase.models.critics import CRITIC
from triphase.models.roles import POLICY, REFERENCE, REWARD
from triphase.objectives.invariants import InvariantError
from triphase.phases import minibatch
from triphase.phases.critic import start_critic
from triphase.phases.ppo import PPOPhase
from triphase.settings.ppo import PPOSettings
from triphase.training.finals import CRITIC_FILE, load_policy, save_policy
from triphase.training.loop import LoopOptions, run_loop


def bytes_of(ppo: PPOPhase, adapter: str) -> list[bytes]:
    return [value.numpy().tobytes() for value in ppo.shared.adapters.state(adapter).values()]


def updated(ppo: PPOPhase) -> dict[str, torch.Tensor]:
    """Gradients of one minibatch with a moved policy and critic."""
    _, found, advantages = rolled_out(ppo)
    moved(ppo)
    minibatch.accumulate_gradients(ppo.policy, found.minibatches[0], found, advantages, ppo.settings, first=False)
    return gradients(ppo)


def test_policy_and_critic_share_no_gradient() -> None:
    both = updated(phase(settings(critic="adapter", value_coefficient=0.4)))
    less = updated(phase(settings(critic="adapter", value_coefficient=0.2)))
    critics = {name for name in both if name.startswith((f"{CRITIC}.", "value_head."))}
    assert critics and critics < set(both)
    for name, gradient in both.items():
        if name in critics:
            assert float(gradient.abs().max()) > 0, name
        expected = 2 * less[name] if name in critics else less[name]
        assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-7), name


def test_the_values_are_those_of_the_critics_adapter() -> None:
    ppo = phase(settings(critic="adapter"))
    moved(ppo)
    with torch.no_grad():
        for value in ppo.shared.adapters.parameters(POLICY).values():
            value.zero_()  # whatever the policy says
    made, found, _ = rolled_out(ppo, iteration=1)
    shared = ppo.shared
    for row, sample in enumerate(made):
        with shared.role(CRITIC):
            out = shared.backbone.model(
                input_ids=torch.tensor([[*sample.prompt, *sample.response]]), output_hidden_states=True
            )
        values = shared.value_head(out.hidden_states[-1][0, len(sample.prompt) - 1 : -1])
        assert torch.allclose(found.values[row, : len(sample.response)], values, atol=1e-5)


@pytest.mark.parametrize("critic", ["value-head", "adapter"])
def test_in_the_warm_up_the_critic_alone_learns(critic: str) -> None:
    ppo = phase(settings(critic=critic, critic_warmup=2, kl_target=0.1, kl_horizon=20.0))
    start, head = bytes_of(ppo, POLICY), ppo.shared.value_head.linear.weight.clone()
    for iteration in range(2):
        metrics = ppo.advance(iteration)
        assert bytes_of(ppo, POLICY) == start
        assert metrics["ppo/reference_kl"] == 0.0 and abs(metrics["ppo/approximate_kl"]) < 1e-9
        assert metrics["ppo/ratio_max"] == pytest.approx(1.0, abs=1e-6) and metrics["ppo/gradient_norm"] > 0
    assert not torch.equal(head, ppo.shared.value_head.linear.weight)
    assert ppo.state.values.kl_coefficient == 0.05  # nothing moved, so there is nothing to steer
    if critic == "adapter":
        assert bytes_of(ppo, CRITIC) != start
    ppo.advance(2)
    assert bytes_of(ppo, POLICY) != start
    ppo.advance(3)
    assert ppo.state.values.kl_coefficient != 0.05


@pytest.mark.parametrize(("start", "adapter"), [("policy", REFERENCE), ("reward", REWARD)])
def test_it_starts_as_a_copy(start: str, adapter: str) -> None:
    ppo = phase(settings(critic="adapter", critic_start=start))
    shared = ppo.shared
    assert bytes_of(ppo, CRITIC) == bytes_of(ppo, adapter)
    head = shared.value_head.linear
    if start == "reward":
        assert torch.equal(head.weight, shared.score_head.linear.weight)
    else:
        assert not head.weight.any() and not head.bias.any()
    ppo.advance(0)
    assert bytes_of(ppo, CRITIC) != bytes_of(ppo, adapter)


def test_its_rate_is_its_own() -> None:
    still = phase(settings(critic="adapter", critic_learning_rate=1e-30))
    before = bytes_of(still, CRITIC)
    still.advance(0)
    assert bytes_of(still, CRITIC) == before and bytes_of(still, POLICY) != before


def test_each_network_is_clipped_by_its_own_norm() -> None:
    """However large the gradient of the critic is, the policy's step is the same."""
    steps = []
    for coefficient in (0.1, 1e4):
        ppo = phase(settings(critic="adapter", value_coefficient=coefficient, minibatch_size=8, epochs=1))
        ppo.advance(0)
        steps.append(bytes_of(ppo, POLICY))
    assert steps[0] == steps[1]


def test_after_a_cut_the_end_is_the_same_to_the_bit(tmp_path: Path) -> None:
    chosen = settings(critic="adapter", critic_start="reward", critic_warmup=1, iterations=3)
    expected = phase(chosen)
    run_loop(expected, LoopOptions(tmp_path / "whole", Lines(), keep=1))
    assert any(name.startswith(f"exp_avg.{CRITIC}.") for name in whole_state(expected))
    for resumed, _ in resumed_after_cuts(lambda: phase(chosen), tmp_path, (1, 2)):
        assert whole_state(resumed) == whole_state(expected)


def test_what_is_frozen_is_compared_at_the_end(tmp_path: Path) -> None:
    for name, touch in (
        ("the reference", lambda shared: next(iter(shared.adapters.parameters(REFERENCE).values())).data.add_(1e-6)),
        ("the reward model", lambda shared: next(iter(shared.adapters.parameters(REWARD).values())).data.add_(1e-6)),
        ("the frozen base", lambda shared: shared.backbone.head_weight.data.add_(1e-6)),
    ):
        ppo = phase(settings(iterations=1, epochs=1))
        with pytest.raises(InvariantError, match=name):
            run_loop(ppo, LoopOptions(tmp_path / name, Lines(), keep=1, on_step=lambda _: touch(ppo.shared)))  # noqa: B023


def test_it_is_written_beside_the_policy_and_can_be_let_go(tmp_path: Path) -> None:
    ppo = tiny_phase(tiny_model(), tiny_settings(iterations=1, critic="adapter"))
    run_loop(ppo, LoopOptions(tmp_path, Lines(), keep=1))
    save_policy(ppo.shared, POLICY, tmp_path / "final", with_value_head=True)
    kept = load_file(tmp_path / "final" / CRITIC_FILE)
    assert all(torch.equal(kept[name], value) for name, value in ppo.shared.critic.parameters().items()) and kept
    load_policy(tiny_model(), POLICY, tmp_path / "final")
    ppo.shared.adapters.remove(CRITIC)
    assert not ppo.shared.adapters.has(CRITIC) and ppo.shared.adapters.has(POLICY)


def test_it_learns_on_the_tiny_task(tmp_path: Path) -> None:
    lines = Lines()
    chosen = tiny_settings(
        iterations=16,
        batch_size=64,
        minibatch_size=32,
        kl_coefficient=0.0,
        score_normalization="raw",
        epochs=3,
        critic="adapter",
        critic_warmup=2,
    )
    run_loop(tiny_phase(tiny_model(layers=1), chosen), LoopOptions(tmp_path, lines, keep=1))
    rows = list(lines.rows.values())
    scores, explained = ([row[name] for row in rows] for name in ("ppo/proxy_score", "ppo/explained_variance"))
    assert sum(scores[-4:]) / 4 > scores[0] + 0.5 * rows[0]["ppo/score_deviation"]
    assert sum(explained[-4:]) / 4 > explained[0] + 0.2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"critic_start": "reward"}, "critic_start reward applies to a critic with its own adapter"),
        ({"critic_learning_rate": 1e-4}, "leave critic_learning_rate out"),
        (
            {"critic": "adapter", "critic_start": "reward", "scorer": {"address": "http://127.0.0.1:1"}},
            "set critic_start: policy",
        ),
        (
            {"critic": "adapter", "critic_start": "reward", "scorer": {"function": "own.scores:score"}},
            "a scorer of kind function scores in its place; set critic_start: policy",
        ),
        ({"critic_warmup": 20}, "leaves the policy none of the 20 iterations"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PPOSettings.model_validate(changes)


def test_a_critic_cannot_start_from_a_reward_model_that_is_not_there() -> None:
    """An added kind of scorer may need none, which is not visible from the settings alone."""
    shared = shared_model()
    stir(shared, REFERENCE)
    with pytest.raises(TrainingError, match=r"this run has no reward model; set ppo\.critic_start: policy"):
        start_critic(shared, settings(critic="adapter", critic_start="reward"))
