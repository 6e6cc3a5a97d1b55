"""What PPO must keep to whatever it learns: real steps, exact first ratios, masks, rewards in their place, resume.

Several of these are faults that other libraries had: minibatches that do not step, a score on the slot after the end,
metrics over padding, a data set smaller than a batch that never ends, losses that depend on the microbatch size.
"""

import dataclasses
from pathlib import Path

import pytest
import torch
from tests.phases.rollouts import evaluated

from triphase.demo.tiny import grammar_gold, tiny_directory
from triphase.models.loading import load_model
from triphase.models.roles import POLICY, REFERENCE, REWARD, SharedModel
from triphase.objectives.invariants import InvariantError
from triphase.phases import experience as experience_module
from triphase.phases import minibatch as minibatch_module
from triphase.phases import rewards as rewards_module
from triphase.phases.ppo import PPOPhase
from triphase.phases.rewards import advantages_of, shape_rewards
from triphase.phases.score_scale import ScoreScale
from triphase.records.types import Message, Prompt
from triphase.rollouts.decoding import LocalGenerator
from triphase.settings.phases import OptimizerSettings
from triphase.settings.ppo import PPOSettings
from triphase.settings.schema import AdapterSettings, ModelSettings
from triphase.tokens.encoding import Encoded
from triphase.training.loop import LoopOptions, run_loop

WORDS = ("sun road tree", "mud song rain", "wind field sun", "stone river road", "rust friend song", "rain mud tree")


class Lines:
    """Metrics in memory."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def write(self, step: int, values: dict[str, float]) -> None:
        self.rows.append((step, dict(values)))

    def truncate_after(self, step: int) -> None:
        self.rows = [row for row in self.rows if row[0] <= step]


def shared_model(layers: int | str = "all") -> SharedModel:
    model = ModelSettings(name=str(tiny_directory() / "model"), dtype="float32")
    shared = SharedModel(load_model(model), AdapterSettings(layers=layers, rank=4), seed=0)
    for name in (REFERENCE, REWARD):
        shared.adapters.add(name)
    return shared


def settings(**changes: object) -> PPOSettings:
    values = {
        "iterations": 2,
        "batch_size": 8,
        "minibatch_size": 4,
        "epochs": 2,
        "max_response_tokens": 6,
        "max_approximate_kl": None,
        "optimizer": OptimizerSettings(learning_rate=3e-3, head_learning_rate=3e-3, schedule="constant"),
    }
    return PPOSettings.model_validate(values | changes)


def phase(shared: SharedModel, chosen: PPOSettings, *, seed: int = 0, count: int = len(WORDS)) -> PPOPhase:
    prompts = [Prompt(str(number), (Message("user", text),)) for number, text in enumerate(WORDS[:count])]
    ids = [tuple(shared.template.prompt_ids(prompt.messages)) for prompt in prompts]
    generator = LocalGenerator(shared, adapter=POLICY, batch_size=chosen.batch_size)
    return PPOPhase(shared, prompts, ids, generator, chosen, seed=seed, gold=grammar_gold)


def policy_bytes(shared: SharedModel) -> dict[str, bytes]:
    state = shared.adapters.state(POLICY) | dict(shared.value_head.state_dict())
    return {name: value.detach().numpy().tobytes() for name, value in state.items()}


def test_every_minibatch_is_one_optimizer_step(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = phase(shared_model(), settings(epochs=3))
    steps = []
    real = ppo.state.updater.step
    monkeypatch.setattr(ppo.state.updater, "step", lambda: (steps.append(1), real())[1])
    metrics = ppo.advance(0)
    assert len(steps) == 3 * (8 // 4) == metrics["ppo/steps"]
    ppo.advance(1)  # the second rollout is no different from the first
    assert len(steps) == 12


def test_a_data_set_smaller_than_the_batch_is_asked_again_in_new_orders() -> None:
    ppo = phase(shared_model(), settings(), count=3)
    chosen = ppo.rollouts.prompts(0) + ppo.rollouts.prompts(1)
    assert len(chosen) == 16
    assert [sorted(chosen[start : start + 3]) for start in range(0, 15, 3)] == [[0, 1, 2]] * 5


def test_the_first_iteration_starts_at_ratio_one_and_no_divergence() -> None:
    metrics = phase(shared_model(), settings(epochs=1, minibatch_size=8)).advance(0)
    assert metrics["ppo/reference_kl"] == 0.0
    assert metrics["ppo/clip_fraction"] == 0.0
    assert metrics["ppo/ratio_mean"] == pytest.approx(1.0, abs=1e-6)
    assert metrics["ppo/approximate_kl"] == pytest.approx(0.0, abs=1e-7)


def test_a_policy_that_does_not_start_as_the_reference_is_refused() -> None:
    shared = shared_model()
    ppo = phase(shared, settings())
    with torch.no_grad():
        next(value for name, value in shared.adapters.parameters(POLICY).items() if "lora_B" in name).add_(0.5)
    with pytest.raises(InvariantError, match="reference at iteration 0"):
        ppo.advance(0)


def test_rollout_logprobs_of_another_temperature_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = phase(shared_model(), settings())
    real = experience_module.evaluate_rollout

    def shifted(*arguments: object, **options: object) -> experience_module.Experience:
        found = real(*arguments, **options)
        return dataclasses.replace(found, logprobs=found.logprobs * 1.1)

    monkeypatch.setattr("triphase.phases.ppo.evaluate_rollout", shifted)
    with pytest.raises(InvariantError, match="first minibatch"):
        ppo.advance(0)


def test_a_score_on_another_token_than_the_last_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = phase(shared_model(), settings())
    real = rewards_module.token_rewards
    monkeypatch.setattr(rewards_module, "token_rewards", lambda *a, **o: real(*a, **o).roll(1, dims=1))
    with pytest.raises(InvariantError, match="the score is on padding or on another token than the last"):
        ppo.advance(0)


def test_a_mask_that_does_not_fit_its_lengths_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = phase(shared_model(), settings())
    real = experience_module.pad_batch

    def longer(*arguments: object, **options: object) -> object:
        batch = real(*arguments, **options)
        lengths = batch.response_lengths.clone()
        lengths[0] += 1
        monkeypatch.setattr(type(batch), "response_mask", property(lambda self: torch.ones(8, 6, dtype=torch.bool)))
        return dataclasses.replace(batch, response_lengths=lengths)

    monkeypatch.setattr(experience_module, "pad_batch", longer)
    with pytest.raises(InvariantError, match="row 0 counts 6 tokens, but the response has 7"):
        ppo.advance(0)


def test_the_gradient_does_not_depend_on_the_microbatches() -> None:
    gradients = []
    for tokens in (10_000, 12):
        shared = shared_model()
        ppo = phase(shared, settings(microbatch_tokens=tokens, minibatch_size=8))
        generated = ppo.rollouts.sampled(0, ppo.rollouts.prompts(0)).generated
        samples = [
            Encoded(ppo.prompt_ids[number], answer.ids)
            for number, answer in zip(ppo.rollouts.prompts(0), generated, strict=True)
        ]
        found = evaluated(shared, samples, ppo.settings, seed=0, iteration=0)
        rewards, _ = shape_rewards(
            found,
            torch.tensor([answer.finished for answer in generated]),
            ppo.settings,
            kl_coefficient=0.05,
            scale=ScoreScale(),
        )
        advantages = advantages_of(rewards, found, ppo.settings, torch.arange(len(samples)))
        minibatch_module.accumulate_gradients(
            ppo.policy, found.minibatches[0], found, advantages, ppo.settings, first=True
        )
        gradients.append([value.grad.clone() for value in shared.adapters.parameters(POLICY).values()])
    assert len(gradients[0]) > 0
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_scores_stand_on_the_last_real_token_and_pay_for_a_missing_end() -> None:
    shared = shared_model()
    shared.adapters.add(POLICY)
    with torch.no_grad():
        shared.score_head.linear.bias.fill_(2.0)
    chosen = settings(score_normalization="raw", missing_eos_penalty=1.0, score_clip=None)
    samples = [Encoded((3, 4), (5, 6, 1)), Encoded((3, 4, 5), (7,))]
    found = evaluated(shared, samples, chosen, seed=0, iteration=1)
    rewards, _ = shape_rewards(found, torch.tensor([True, False]), chosen, kl_coefficient=0.0, scale=ScoreScale())
    scores = found.scores.tolist()
    assert scores[0] > 0 and scores[1] > 1
    expected = torch.tensor([[0.0, 0.0, scores[0]], [scores[1] - 1.0, 0.0, 0.0]])
    torch.testing.assert_close(rewards, expected)


def test_the_temperature_is_in_every_log_probability() -> None:
    shared = shared_model()
    shared.adapters.add(POLICY)
    sample = Encoded((3, 4), (5, 6, 1))
    found = evaluated(shared, [sample], settings(temperature=0.5), seed=0, iteration=1)
    ids = torch.tensor([[*sample.prompt, *sample.response]])
    with torch.no_grad():
        logits = shared.backbone.model(input_ids=ids).logits[0, 1:4] / 0.5
    expected = logits.log_softmax(-1).gather(1, torch.tensor(sample.response)[:, None]).squeeze(1)
    torch.testing.assert_close(found.logprobs[0], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.reference_logprobs[0], expected, rtol=1e-5, atol=1e-5)


def test_updates_end_early_and_runs_end_at_their_budget(tmp_path: Path) -> None:
    early = phase(shared_model(), settings(epochs=4, max_approximate_kl=1e-9)).advance(0)
    assert 1 <= early["ppo/steps"] < 8
    lines = Lines()
    ppo = phase(shared_model(), settings(iterations=6, kl_budget=1e-6))
    run_loop(ppo, LoopOptions(tmp_path, lines, keep=1))
    assert ppo.state.position == 2  # the first rollout is still the reference's
    assert "kl_budget" in ppo.state.values.finished


def test_a_stopped_run_ends_with_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    whole, lines = shared_model(), Lines()
    run_loop(phase(whole, settings(iterations=3)), LoopOptions(tmp_path / "whole", lines, keep=1))
    first = shared_model()
    halted = phase(first, settings(iterations=3))
    with pytest.raises(RuntimeError, match="power"):
        run_loop(halted, LoopOptions(tmp_path / "parts", Lines(), keep=1, on_step=_fails_at(2)))
    resumed, rest = shared_model(), Lines()
    run_loop(phase(resumed, settings(iterations=3)), LoopOptions(tmp_path / "parts", rest, keep=1))
    assert policy_bytes(resumed) == policy_bytes(whole)
    assert [step for step, _ in rest.rows] == [2, 3]
    names = [name for name in lines.rows[-1][1] if "seconds" not in name]
    assert [rest.rows[-1][1][name] for name in names] == [lines.rows[-1][1][name] for name in names]


def test_the_seed_decides_the_bytes(tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate((0, 0, 1)):
        shared = shared_model()
        run_loop(phase(shared, settings(), seed=seed), LoopOptions(tmp_path / str(number), Lines(), keep=1))
        found.append(policy_bytes(shared))
    assert found[0] == found[1] != found[2]


def test_the_policy_learns_and_nothing_else_moves(tmp_path: Path) -> None:
    shared = shared_model(layers=1)
    reward, reference = shared.adapters.state(REWARD), shared.adapters.state(REFERENCE)
    base = {name: value.clone() for name, value in shared.backbone.model.named_parameters() if "lora" not in name}
    lines = Lines()
    chosen = settings(
        iterations=30, batch_size=64, minibatch_size=32, kl_coefficient=0.0, score_normalization="raw", epochs=3
    )
    run_loop(phase(shared, chosen), LoopOptions(tmp_path, lines, keep=1))
    scores = [row["ppo/proxy_score"] for _, row in lines.rows]
    assert sum(scores[-5:]) / 5 > scores[0] + 0.5 * lines.rows[0][1]["ppo/score_deviation"]
    for before, name in ((reward, REWARD), (reference, REFERENCE)):
        assert all(torch.equal(before[key], value) for key, value in shared.adapters.state(name).items())
    after = dict(shared.backbone.model.named_parameters())
    assert all(torch.equal(base[name], after[name]) for name in base)


def _fails_at(step: int):
    seen = []

    def on_step(_: object) -> None:
        seen.append(1)
        if len(seen) == step:
            raise RuntimeError("power")

    return on_step
