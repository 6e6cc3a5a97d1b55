"""Supervised fine-tuning: response tokens alone count, each the same, and what is to be trained is trained."""

import math
from pathlib import Path

import pytest
import torch
from tests.small import Encoded, Lines, samples, shared_model

from triphase.models.roles import REFERENCE, SharedModel
from triphase.phases.sft import SupervisedPhase
from triphase.settings.phases import OptimizerSettings, SupervisedSettings
from triphase.settings.schema import AdapterSettings
from triphase.training.loop import LoopOptions, run_loop

MADE = samples(10, response=(1, 9))


def settings(**values: object) -> SupervisedSettings:
    optimizer = OptimizerSettings(learning_rate=3e-3, schedule="constant")
    return SupervisedSettings(**{"batch_size": 10, "epochs": 1, "optimizer": optimizer, **values})


def phase(shared: SharedModel, made: list[Encoded] = MADE, *, order=None, heldout=(), **values) -> SupervisedPhase:
    return SupervisedPhase(shared, made, order or list(range(len(made))), heldout, settings(**values))


@torch.no_grad()
def plain_loss(shared: SharedModel, made: list[Encoded]) -> float:
    """The mean over all response tokens, sample by sample, by the plain model."""
    total = 0.0
    for sample in made:
        logits = shared.backbone.model(input_ids=torch.tensor([[*sample.prompt, *sample.response]])).logits[0]
        logprobs = logits[len(sample.prompt) - 1 : -1].log_softmax(-1)
        total -= float(logprobs.gather(1, torch.tensor(sample.response)[:, None]).sum())
    return total / sum(len(sample.response) for sample in made)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_loss_is_the_mean_over_response_tokens_of_the_whole_step(method: str) -> None:
    shared = shared_model()
    expected = plain_loss(shared, MADE)
    subject = phase(shared, heldout=MADE, method=method, microbatch_tokens=1)  # a pass for each sample
    assert subject.heldout_loss() == pytest.approx(expected, abs=1e-6)
    metrics = subject.advance(0)
    assert metrics["sft/loss"] == pytest.approx(expected, abs=1e-6)
    assert metrics["sft/tokens"] == sum(len(sample.response) for sample in MADE)


def gradients(made: list[Encoded], method: str, most: int) -> dict[str, torch.Tensor]:
    shared = shared_model()
    subject = phase(shared, made, method=method, microbatch_tokens=most)
    found: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for name, parameter in subject.state.updater.parameters.items():
            if "lora_B" in name:
                parameter.fill_(0.05)
    subject.state.updater.step = lambda: _keep(subject, found)
    subject.advance(0)
    return found


def _keep(subject: SupervisedPhase, found: dict[str, torch.Tensor]):
    from triphase.training.step import StepResult

    found |= {name: value.grad.clone() for name, value in subject.state.updater.parameters.items()}
    return StepResult(0.0, 0.0, False)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("most", [1, 30])
def test_the_size_of_a_microbatch_changes_nothing(method: str, most: int) -> None:
    whole, parts = gradients(MADE, method, 10_000), gradients(MADE, method, most)
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        assert torch.allclose(gradient, parts[name], rtol=1e-4, atol=1e-6)


def test_what_the_prompt_asks_to_be_predicted_is_no_target() -> None:
    # The last prompt token is read but never predicted: its row of an untied head gets pushed down only, never up.
    shared = shared_model(tie_word_embeddings=False)
    only = [Encoded((10, 11, 12), (7, 1))]
    subject = phase(shared, only, method="full", batch_size=1)
    head = shared.backbone.head_weight
    part = subject._loss([0], 2)
    part.backward()
    hidden = shared.backbone.whole(torch.tensor([[10, 11, 12, 7, 1]]))[0].detach()
    logits = torch.nn.functional.linear(hidden[2:4], head.detach())
    expected = (logits.softmax(-1) - torch.nn.functional.one_hot(torch.tensor([7, 1]), 26)).T @ hidden[2:4] / 2
    assert torch.allclose(head.grad, expected, rtol=1e-4, atol=1e-6)


def test_lora_trains_the_adapter_alone(tmp_path: Path) -> None:
    shared = shared_model()
    before = {name: value.clone() for name, value in shared.backbone.model.named_parameters()}
    subject = phase(shared, order=[*range(10)] * 3)
    subject.advance(0)
    assert subject.trunk_cache._kept  # other visits of the same samples follow
    run_loop(subject, LoopOptions(tmp_path, Lines(), keep=1, every=10))
    assert not subject.trunk_cache._kept
    after = dict(shared.backbone.model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(bool(value.any()) for name, value in shared.adapters.state(REFERENCE).items() if "lora_B" in name)
    assert not any(value.requires_grad for value in after.values())


def test_full_fine_tuning_trains_everything(tmp_path: Path) -> None:
    shared = shared_model()
    before = {name: value.clone() for name, value in shared.backbone.model.named_parameters()}
    run_loop(phase(shared, method="full"), LoopOptions(tmp_path, Lines(), keep=1, every=10))
    after = dict(shared.backbone.model.named_parameters())
    assert [name for name, value in before.items() if torch.equal(after[name], value)] == []
    assert not any(value.requires_grad for value in after.values())


@pytest.mark.parametrize(("method", "stated"), [("lora", 0.5), ("full", 0.1)])
def test_a_mapping_is_learned(method: str, stated: float, tmp_path: Path) -> None:
    # Each word is answered by the next one. Chance is ln 26 = 3.26 nats. Low-rank updates of random frozen layers under
    # a frozen random head get less far than training all of them.
    made = [Encoded((3, word), (word + 1, 1)) for word in range(6, 20)]
    shared, lines = shared_model(rank=8, adapted="all"), Lines()
    subject = phase(
        shared,
        made,
        order=[*range(14)] * 100,
        method=method,
        batch_size=14,
        optimizer=OptimizerSettings(learning_rate=1e-2, schedule="linear"),
    )
    run_loop(subject, LoopOptions(tmp_path, lines, keep=1, every=100))
    assert lines.rows[1]["sft/loss"] > 1.5
    assert lines.rows[100]["sft/loss"] < stated


def test_steps_follow_the_order_and_the_last_may_be_small(tmp_path: Path) -> None:
    lines = Lines()
    order = [3, 3, 1, 0, 9, 2, 4]
    subject = phase(shared_model(), order=order, batch_size=3, heldout=MADE[:2])
    run_loop(subject, LoopOptions(tmp_path, lines, keep=1, every=100))
    tokens = [sum(len(MADE[index].response) for index in order[start : start + 3]) for start in (0, 3, 6)]
    assert [row["sft/tokens"] for row in lines.rows.values()] == tokens
    assert "sft/heldout_loss" in lines.rows[3]


def test_a_loss_that_is_not_finite_changes_nothing_and_is_kept_for_inspection(tmp_path: Path) -> None:
    shared = shared_model()
    subject = phase(shared)
    subject.directory = tmp_path
    subject._loss = lambda indices, tokens: torch.tensor(math.nan, requires_grad=True) * 1
    before = shared.adapters.state(REFERENCE)
    assert subject.advance(0)["sft/skipped_steps"] == 1
    assert all(torch.equal(value, before[name]) for name, value in shared.adapters.state(REFERENCE).items())
    assert (tmp_path / "bad" / "000001.safetensors").exists()


@pytest.mark.parametrize("budgets", [{}, {"trunk_cache_gb": 0.0}, {"trunk_cache_gb": 1e-6, "trunk_file_gb": 2e-6}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_bytes(
    budgets: dict[str, float], dtype: torch.dtype, tmp_path: Path
) -> None:
    order, lines = [(7 * visit) % 10 for visit in range(40)], {"whole": Lines(), "parts": Lines()}

    def train(folder: str, steps: int) -> dict[str, torch.Tensor]:
        shared = shared_model(dtype=dtype)
        shared.adapter_settings = AdapterSettings(layers=2, **budgets)
        subject = phase(shared, order=order, batch_size=4, microbatch_tokens=24)
        subject.total_steps = steps
        run_loop(subject, LoopOptions(tmp_path / folder, lines[folder], keep=1, every=1))
        assert [path.name for path in (tmp_path / folder).iterdir()] == ["checkpoints"]
        return shared.adapters.state(REFERENCE)

    whole = train("whole", 10)
    train("parts", 3)
    train("parts", 7)
    resumed = train("parts", 10)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    assert any(bool(value.any()) for name, value in whole.items() if "lora_B" in name)


def test_the_trunk_reads_held_out_samples_once_and_the_loss_is_the_same_after_training(monkeypatch) -> None:
    shared, read = shared_model(), []
    subject = phase(shared, MADE[:6], heldout=MADE[6:])
    trunk = shared.trunk
    monkeypatch.setattr(shared, "trunk", lambda batch: read.append(len(batch.input_ids)) or trunk(batch))
    assert subject.heldout_loss() == pytest.approx(plain_loss(shared, MADE[6:]), abs=1e-6)
    assert sum(read) == 4
    subject.advance(0)
    assert sum(read) == 4 + 6  # one epoch: those that are trained on are visited once, and not kept
    read.clear()
    again = subject.heldout_loss()
    assert not read
    with shared.role(REFERENCE):
        assert again == pytest.approx(plain_loss(shared, MADE[6:]), abs=1e-6)


@pytest.mark.parametrize(("visits", "read"), [(1, 3), (2, 2)])
def test_the_trunk_keeps_a_sample_that_is_visited_twice_even_if_it_is_the_only_one(
    visits: int, read: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, seen = shared_model(), []
    subject = phase(shared, MADE[:1], order=[0] * visits, batch_size=1)
    trunk = shared.trunk
    monkeypatch.setattr(shared, "trunk", lambda batch: seen.append(batch) or trunk(batch))
    for _ in range(read):
        subject.advance(0)
    assert len(seen) == (1 if visits > 1 else read)
