"""Every advantage estimator: one contract, whole phases of PPO, resume, and what their settings refuse."""

from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest
import torch
from tests.phases.test_ppo import phase, settings
from tests.settings_text import settings_from_text
from tests.small import Lines
from torch import Tensor

from triphase.errors import RunError, SettingsError
from triphase.models.roles import POLICY
from triphase.objectives.masking import masked_mean, masked_variance
from triphase.phases import ppo as ppo_module
from triphase.phases.estimators import ESTIMATORS, GeneralizedAdvantage, estimator_of
from triphase.phases.experience import Experience
from triphase.phases.ppo import PPOPhase
from triphase.phases.rewards import advantages_of
from triphase.settings.ppo import PPOSettings
from triphase.training.loop import LoopOptions, run_loop

every_kind = pytest.mark.parametrize("kind", ESTIMATORS)
without_critic = pytest.mark.parametrize("kind", [kind for kind in ESTIMATORS if kind != "gae"])
MASK = torch.arange(4)[None, :] < torch.tensor([3, 1, 4, 2])[:, None]
GROUPS = torch.tensor([5, 5, 2, 2])


def chosen(kind: str, **changes: object) -> PPOSettings:
    return settings(advantage_estimator=kind, responses_per_prompt=2, **changes)


def numbers(seed: int) -> Tensor:
    return torch.randn(4, 4, generator=torch.Generator().manual_seed(seed))


def test_the_settings_name_every_estimator() -> None:
    assert get_args(PPOSettings.model_fields["advantage_estimator"].annotation) == tuple(ESTIMATORS)


@every_kind
def test_every_estimator_keeps_the_contract(kind: str) -> None:
    estimator, made = estimator_of(chosen(kind)), chosen(kind)
    rewards, values = numbers(0), numbers(1)
    found = estimator(rewards, values, MASK, GROUPS)
    for each in (found.advantages, found.returns):
        assert each.shape == rewards.shape
        assert each.dtype == torch.float32
        assert not each.requires_grad
        assert each[~MASK].abs().sum() == 0
    assert found.advantages[MASK].abs().min() > 0
    # More reward for one response raises its advantage against the others of its prompt.
    more = rewards.clone()
    more[0, 2] += 1.0
    moved = estimator(more, values, MASK, GROUPS).advantages - found.advantages
    assert moved[0, 2] > 0 if kind != "grpo" else found.advantages[0, 2].abs() == pytest.approx(1)
    # What stands at padding is never read.
    junk = torch.where(MASK, rewards, torch.nan), torch.where(MASK, values, torch.nan)
    assert torch.equal(estimator(*junk, MASK, GROUPS).advantages, found.advantages)
    if made.has_critic:
        with pytest.raises(ValueError, match="values is None"):
            estimator(rewards, None, MASK, GROUPS)
    else:
        assert torch.equal(estimator(rewards, None, MASK, GROUPS).advantages, found.advantages)


def test_the_default_is_generalized_advantage_estimation() -> None:
    assert estimator_of(PPOSettings(discount=0.9, gae_lambda=0.8)) == GeneralizedAdvantage(0.9, 0.8)


# Whole iterations


def one_iteration(kind: str, monkeypatch: pytest.MonkeyPatch) -> tuple[PPOPhase, dict[str, float], list[tuple]]:
    calls: list[tuple] = []

    def watched(rewards: Tensor, experience: Experience, made: PPOSettings, groups: Tensor) -> object:
        calls.append((experience, groups, advantages_of(rewards, experience, made, groups)))
        return calls[-1][-1]

    monkeypatch.setattr(ppo_module, "advantages_of", watched)
    ppo = phase(chosen(kind))
    return ppo, ppo.advance(0), calls


@every_kind
def test_an_iteration_of_every_kind(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ppo, metrics, [(experience, groups, found)] = one_iteration(kind, monkeypatch)
    mask = experience.batch.response_mask
    assert groups.tolist() == ppo.rollouts.prompts(0)
    assert groups[::2].tolist() == groups[1::2].tolist()
    of_the_critic = {"ppo/value_loss", "ppo/explained_variance"}
    assert of_the_critic & metrics.keys() == (of_the_critic if kind == "gae" else set())
    assert metrics["ppo/steps"] == 4
    if kind == "grpo":
        for pair in found.advantages[:, 0].reshape(-1, 2):
            assert pair.sum() == pytest.approx(0, abs=1e-5)
            assert pair.abs().tolist() == pytest.approx([1, 1], abs=1e-5) or pair.abs().sum() == 0
    elif kind == "gae":
        assert float(masked_mean(found.advantages, mask)) == pytest.approx(0, abs=1e-5)
        assert float(masked_variance(found.advantages, mask)) == pytest.approx(1, abs=1e-4)
    if kind != "gae":
        for row, length in enumerate(mask.sum(1).tolist()):
            assert len(set(found.advantages[row, :length].tolist())) == 1


@without_critic
def test_no_critic_is_built_or_trained(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ppo, _, [(experience, _, _)] = one_iteration(kind, monkeypatch)
    assert experience.values is None
    assert "value_head" not in vars(ppo.shared)
    assert set(ppo.state.updater.parameters) == set(ppo.shared.adapters.parameters(POLICY))


def test_with_gae_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo, _, [(experience, _, _)] = one_iteration("gae", monkeypatch)
    assert experience.values is not None
    assert any(name.startswith("value_head.") for name in ppo.state.updater.parameters)


# Resume


def fitted(folder: Path, kind: str, lines: Lines, *, until: int = 3) -> PPOPhase:
    """A phase of three iterations, killed before the iteration ``until``."""
    ppo = phase(chosen(kind))
    whole = ppo.advance

    def killed(iteration: int) -> dict[str, float]:
        if iteration >= until:
            raise KeyboardInterrupt
        return whole(iteration)

    ppo.advance = killed  # type: ignore[method-assign]
    with suppress(KeyboardInterrupt):
        run_loop(ppo, LoopOptions(folder, lines, keep=2))
    return ppo


@every_kind
def test_resume_is_exact(kind: str, tmp_path: Path) -> None:
    straight, lines = Lines(), Lines()
    whole = fitted(tmp_path / "whole", kind, straight)
    fitted(tmp_path / "broken", kind, lines, until=1)
    resumed = fitted(tmp_path / "broken", kind, lines)
    assert lines.plain() == straight.plain()
    one, other = whole.state.updater.tensors(), resumed.state.updater.tensors()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any("value_head" in name for name in one) is (kind == "gae")


@pytest.mark.parametrize(("before", "after"), [("gae", "rloo"), ("rloo", "gae"), ("grpo", "reinforce")])
def test_another_estimator_does_not_resume(before: str, after: str, tmp_path: Path) -> None:
    fitted(tmp_path, before, Lines(), until=1)
    with pytest.raises(
        RunError, match=f"started with ppo.advantage_estimator {before}, but the settings say {after}; "
    ) as told:
        fitted(tmp_path, after, Lines())
    assert "\n" not in str(told.value)


# Settings

BASE = "name: one\nmodel: {name: embedded:tiny}\ndata: {}\n"


@pytest.mark.parametrize("kind", ["rloo", "grpo"])
@pytest.mark.parametrize(
    "where", ["ppo: {{advantage_estimator: {}}}", "variants: {{other: {{advantage_estimator: {}}}}}"]
)
def test_one_response_to_a_prompt_cannot_be_compared(kind: str, where: str) -> None:
    with pytest.raises(
        SettingsError, match="compares the responses to a prompt, but responses_per_prompt is 1; "
    ) as told:
        settings_from_text(BASE + where.format(kind))
    assert "\n" not in str(told.value)


def test_one_response_has_no_mean_to_be_compared_with() -> None:
    with pytest.raises(SettingsError, match="reinforce compares the responses of a rollout, but batch_size is 1"):
        settings_from_text(BASE + "ppo: {advantage_estimator: reinforce, batch_size: 1, minibatch_size: 1}")


@pytest.mark.parametrize("given", ["critic: adapter", "critic_warmup: 2"])
def test_a_critic_of_its_own_is_refused_where_there_is_none(given: str) -> None:
    with pytest.raises(SettingsError, match="advantage_estimator reinforce has no critic; leave critic and"):
        settings_from_text(BASE + f"ppo: {{advantage_estimator: reinforce, {given}}}")


def test_an_unknown_estimator_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"ppo.advantage_estimator: vtrace is not allowed; .*gae.*rloo"):
        settings_from_text(BASE + "ppo: {advantage_estimator: vtrace}")


def test_what_has_no_effect_is_noted(caplog: pytest.LogCaptureFixture) -> None:
    settings_from_text(
        BASE
        + "ppo: {value_coefficient: 0.5, responses_per_prompt: 2}\n"
        + "variants:\n"
        + "  one: {advantage_estimator: rloo, gae_lambda: 0.9, optimizer: {head_learning_rate: 1e-3}}\n"
        + "  two: {advantage_estimator: grpo, standardize_advantages: true}\n"
        + "  three: {advantage_estimator: reinforce}\n"
    )
    assert [record.getMessage() for record in caplog.records] == [
        "variants.one: gae_lambda, optimizer.head_learning_rate: no effect with advantage_estimator rloo",
        "variants.two: standardize_advantages: no effect with advantage_estimator grpo",
    ]
    caplog.clear()
    remedies = "witness: true, epochs: 2, ensemble: {members: 4, combine: worst}"
    settings_from_text(BASE + f"reward: {{{remedies}}}\n")
    assert caplog.records == []
    settings_from_text(BASE + f"reward: {{from: elsewhere, {remedies}}}\n")
    (record,) = caplog.records
    assert record.getMessage().startswith("reward: ensemble, witness: no effect with reward.from, which takes")
