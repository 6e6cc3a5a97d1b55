"""Runs whose PPO has no critic: the main run and variants next to one that has, from first step to report."""

import json
import re
from pathlib import Path

import pytest
import torch
from tests.runs.small_run import do, files_of, settings, write_data
from tests.runs.test_metrics_of_a_run import faults

from triphase.errors import RunError
from triphase.models.roles import POLICY
from triphase.monitoring.metrics import FILE_NAME, read_metrics
from triphase.runs import pipeline
from triphase.runs.opening import open_policy
from triphase.settings.schema import RunSettings
from triphase.training.checkpoint import load_checkpoint
from triphase.training.checkpoint_places import kept_steps
from triphase.training.stopping import Stopped

PPO = {"iterations": 2, "batch_size": 8, "minibatch_size": 8, "epochs": 1, "max_response_tokens": 10}
VARIANTS = {kind: {"advantage_estimator": kind, "responses_per_prompt": 4} for kind in ("rloo", "grpo", "reinforce")}
RLOO = {**PPO, "iterations": 3, "advantage_estimator": "rloo", "responses_per_prompt": 2}


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a critic, and a variant of each kind without one."""
    folder = tmp_path_factory.mktemp("four")
    write_data(folder)
    do(settings(folder, ppo=PPO, variants=VARIANTS), pipeline.run_all)
    return folder


def alone(folder: Path, **changes: object) -> RunSettings:
    return settings(folder, method="lora", ppo=RLOO, **changes)


@pytest.fixture(scope="module")
def rloo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rloo")
    write_data(folder)
    do(alone(folder), pipeline.run_all)
    return folder


def test_each_kind_has_its_line_in_the_results(four: Path) -> None:
    run = four / "runs" / "small"
    samples, page = (run / "evaluation" / "samples.jsonl").read_text(), (run / "report.html").read_text()
    rows = [json.loads(line) for line in samples.splitlines()]
    assert {f"arm:{kind}" for kind in VARIANTS} < {row["policy"] for row in rows}
    assert [kind for kind in VARIANTS if kind not in page] == []
    finals = {str(file) for kind in VARIANTS for file in files_of(run / "arms" / kind / "final", "*.safetensors")}
    assert finals == {"adapter_model.safetensors"}
    assert "value_head.safetensors" in files_of(run / "ppo" / "final", "*")
    weights = [
        files_of(run / "arms" / kind / "final", "*.safetensors")["adapter_model.safetensors"] for kind in VARIANTS
    ]
    assert len(set(weights)) == len(VARIANTS)


def test_variants_without_a_critic_leave_the_main_run_as_it_is(four: Path, tmp_path: Path) -> None:
    do(settings(four, output="other", ppo=PPO), pipeline.run_all)
    one, other = (files_of(four / output / "small" / "ppo" / "final") for output in ("runs", "other"))
    assert one == other


@pytest.mark.parametrize("kind", VARIANTS)
def test_no_checkpoint_and_no_metric_is_of_a_critic(four: Path, kind: str) -> None:
    variant = four / "runs" / "small" / "arms" / kind
    tensors = load_checkpoint(variant / "checkpoints", kept_steps(variant / "checkpoints")[-1]).tensors
    assert tensors and not [name for name in tensors if "value_head" in name]
    assert not {"ppo/value_loss", "ppo/explained_variance"} & {
        name for row in read_metrics(variant / FILE_NAME) for name in row
    }


def test_the_metrics_are_those_declared(rloo: Path) -> None:
    rows = read_metrics(rloo / "runs" / "small" / "ppo" / FILE_NAME)
    assert len(rows) == 3
    assert list(faults("ppo", rows, alone(rloo))) == []


def test_a_kept_checkpoint_opens(rloo: Path) -> None:
    run = rloo / "runs" / "small"
    shared, _, _ = open_policy(run, 2)
    tensors = load_checkpoint(run / "ppo" / "checkpoints", 2).tensors
    state = shared.adapters.state(POLICY)
    assert all(torch.equal(value, tensors[f"parameter.{name}"]) for name, value in state.items())


def test_stopped_and_continued_it_ends_with_the_same_weights(rloo: Path) -> None:
    chosen = alone(rloo, output="stopped")
    do(chosen, pipeline.run_sft, pipeline.run_sampling, pipeline.run_labeling, pipeline.run_reward)
    with pytest.raises(Stopped):
        do(chosen, pipeline.run_ppo, stop=True)
    assert kept_steps(rloo / "stopped" / "small" / "ppo" / "checkpoints") == [1]
    said = "ppo.advantage_estimator is rloo there and reinforce here, and ppo has"
    with pytest.raises(RunError, match=re.escape(said)) as told:
        other = {**RLOO, "advantage_estimator": "reinforce"}
        do(settings(rloo, method="lora", output="stopped", ppo=other), pipeline.run_ppo)
    assert "\n" not in str(told.value)
    do(chosen, pipeline.run_ppo)
    one, two = (files_of(rloo / output / "small" / "ppo" / "final") for output in ("runs", "stopped"))
    assert one == two


def test_nothing_is_planned_for_a_critic(rloo: Path) -> None:
    plan = json.loads((rloo / "runs" / "small" / "plan.json").read_text())
    assert "score head" in json.dumps(plan) and "value head" not in json.dumps(plan)
