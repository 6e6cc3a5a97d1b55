"""PPO with full weights: a copy of the base learns; reference, reward model and critic keep their base."""

from pathlib import Path

import pytest
import torch
from tests.phases.rollouts import evaluated
from tests.phases.test_ppo import TEXTS, Lines, resumed_after_cuts, rolled_out, settings, whole_state
from tests.phases.test_ppo_contract import WORDS
from tests.phases.test_ppo_contract import settings as tiny_settings
from tests.phases.test_ppo_contract import shared_model as tiny_model
from tests.small import shared_model, stir

from triphase.errors import ModelError
from triphase.models.policies import FullPolicy, policy_for
from triphase.models.roles import REFERENCE, REWARD, SharedModel
from triphase.phases.ppo import PPOPhase
from triphase.records.types import Message, Prompt
from triphase.rollouts.decoding import LocalGenerator
from triphase.settings.phases import OptimizerSettings
from triphase.settings.ppo import PPOSettings
from triphase.training.loop import LoopOptions, run_loop


def phase(chosen: PPOSettings, shared: SharedModel | None = None, texts: tuple[str, ...] = TEXTS) -> PPOPhase:
    if shared is None:
        shared = shared_model()
        for number, adapter in enumerate((REFERENCE, REWARD)):
            stir(shared, adapter, seed=number)
    prompts = [Prompt(text, (Message("user", text),)) for text in texts]
    ids = [tuple(shared.template.prompt_ids(prompt.messages)) for prompt in prompts]
    policy = policy_for(shared, "full")
    generator = LocalGenerator(policy.model, adapter=policy.adapter, batch_size=8)
    return PPOPhase(shared, prompts, ids, generator, chosen, seed=0, policy=policy)


def full(**changes: object) -> PPOSettings:
    return settings(method="full", **changes)


@pytest.mark.parametrize("times", [1, 2])
def test_it_starts_as_the_reference_to_the_bit(times: int) -> None:
    metrics = phase(full(responses_per_prompt=times, epochs=1, minibatch_size=8)).advance(0)
    assert metrics["ppo/reference_kl"] == 0.0
    assert metrics["ppo/ratio_mean"] == pytest.approx(1.0, abs=1e-6)
    assert metrics["ppo/clip_fraction"] == 0.0


def test_the_states_of_its_own_trunk_are_not_those_of_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo, passes = phase(full(iterations=2)), []
    trunk = SharedModel.trunk
    monkeypatch.setattr(SharedModel, "trunk", lambda self, batch: passes.append(self) or trunk(self, batch))
    ppo.advance(0)
    assert passes and all(each is ppo.shared for each in passes)


@pytest.mark.parametrize("critic", ["value-head", "adapter"])
def test_every_weight_of_the_copy_learns_and_the_base_stays(critic: str, tmp_path: Path) -> None:
    ppo = phase(full(iterations=2, critic=critic))
    before = {name: value.detach().clone() for name, value in ppo.policy.parameters().items()}
    adapter = ppo.policy.model.adapters.state(REFERENCE)
    run_loop(ppo, LoopOptions(tmp_path, Lines(), keep=1))  # compares base, reference and reward model at its end
    assert before and all(not torch.equal(before[name], value) for name, value in ppo.policy.parameters().items())
    frozen = dict(ppo.shared.backbone.model.named_parameters())
    assert all(torch.equal(before[name], frozen[name]) for name in before)
    now = ppo.policy.model.adapters.state(REFERENCE)
    assert all(torch.equal(adapter[name], value) for name, value in now.items())
    assert not any(value.requires_grad for value in ppo.policy.parameters().values())


def test_no_weight_of_the_policy_is_stored_with_the_frozen_base() -> None:
    ppo = phase(full())
    trained, frozen = ppo.policy.parameters(), dict(ppo.shared.backbone.model.named_parameters())
    assert set(trained) == {name for name in frozen if ".lora_" not in name}
    places = {value.untyped_storage().data_ptr() for value in frozen.values()}
    assert not [name for name, value in trained.items() if value.untyped_storage().data_ptr() in places]
    tied = ppo.policy.model.backbone.model
    assert tied.get_input_embeddings().weight is tied.get_output_embeddings().weight


@pytest.mark.parametrize("kind", ["rloo", "grpo", "reinforce"])
def test_without_a_critic_none_is_built(kind: str) -> None:
    ppo = phase(full(advantage_estimator=kind, responses_per_prompt=2))
    metrics = ppo.advance(0)
    assert metrics["ppo/reference_kl"] == 0.0 and "ppo/value_loss" not in metrics
    assert "value_head" not in vars(ppo.shared) and "value_head" not in vars(ppo.policy.model)
    assert set(ppo.state.updater.parameters) == set(ppo.policy.parameters())


def test_weights_of_a_checkpoint_of_another_kind_are_refused() -> None:
    ppo = phase(full())
    state = {name: value + 1.0 for name, value in ppo.policy.parameters().items()}
    ppo.policy.load(state | {"value_head.linear.bias": torch.zeros(1)})
    assert all(torch.equal(value, state[name]) for name, value in ppo.policy.parameters().items())
    with pytest.raises(ModelError, match=r"has no .* another model, ppo\.method"):
        ppo.policy.load(ppo.shared.adapters.parameters(REFERENCE))


def test_the_reward_model_scores_with_the_weights_it_was_trained_on() -> None:
    ppo = phase(full())
    made, found, _ = rolled_out(ppo)
    with torch.no_grad():
        for value in ppo.policy.parameters().values():
            value.add_(0.1)
    again = evaluated(ppo.shared, made, ppo.settings, seed=0, iteration=1, policy=ppo.policy)
    assert torch.equal(found.scores, again.scores) and torch.equal(found.reference_logprobs, again.reference_logprobs)
    assert not torch.allclose(found.logprobs, again.logprobs)


def test_what_samples_is_the_policy_that_learns() -> None:
    ppo = phase(full())
    before = ppo.rollouts.sampled(0, [0, 1, 2, 3]).generated
    with torch.no_grad():
        ppo.policy.model.backbone.head_weight.mul_(-1.0)
    assert ppo.rollouts.sampled(0, [0, 1, 2, 3]).generated != before


def test_after_a_cut_the_end_is_the_same_to_the_bit(tmp_path: Path) -> None:
    chosen = full(iterations=3, critic_warmup=1)
    expected = phase(chosen)
    run_loop(expected, LoopOptions(tmp_path / "whole", Lines(), keep=1))
    for resumed, _ in resumed_after_cuts(lambda: phase(chosen), tmp_path, (1, 2)):
        assert whole_state(resumed) == whole_state(expected)


def test_a_policy_of_its_own_must_be_given() -> None:
    ppo = phase(full())
    assert isinstance(ppo.policy, FullPolicy)
    with pytest.raises(ValueError, match="give it"):
        PPOPhase(ppo.shared, ppo.prompts, ppo.prompt_ids, ppo.rollouts._generator, ppo.settings, seed=0)


def test_it_learns_on_the_tiny_task(tmp_path: Path) -> None:
    lines = Lines()
    chosen = tiny_settings(
        method="full",
        iterations=12,
        batch_size=64,
        minibatch_size=32,
        kl_coefficient=0.0,
        score_normalization="raw",
        epochs=2,
        optimizer=OptimizerSettings(learning_rate=1e-3, schedule="constant"),
    )
    run_loop(phase(chosen, tiny_model(layers=1), WORDS), LoopOptions(tmp_path, lines, keep=1))
    rows = list(lines.rows.values())
    scores = [row["ppo/proxy_score"] for row in rows]
    assert sum(scores[-3:]) / 3 > scores[0] + 0.5 * rows[0]["ppo/score_deviation"]
