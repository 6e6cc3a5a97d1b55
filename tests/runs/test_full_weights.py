"""A run whose PPO trains every weight: its result opens wherever a policy is opened, and is planned."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests.runs.small_run import do, settings, write_data
from transformers import AutoModelForCausalLM

from triphase.cli.chat import talk
from triphase.cli.main import main
from triphase.errors import RunError
from triphase.models.roles import REFERENCE
from triphase.planning.plan import make_plan
from triphase.runs import pipeline
from triphase.runs.checkpoints import load_policy_at
from triphase.runs.evaluation import evaluate_policies
from triphase.runs.exporting import merge_policy
from triphase.runs.opening import open_any, open_policy
from triphase.runs.verification import verify_run
from triphase.settings.schema import RunSettings

PPO = {
    "method": "full",
    "iterations": 2,
    "batch_size": 8,
    "minibatch_size": 8,
    "epochs": 1,
    "max_response_tokens": 10,
    "optimizer": {"learning_rate": 1e-3},
}


# All but the report, whose plan takes as long as the rest: a test of its own makes it.
STEPS = (
    pipeline.run_sft,
    pipeline.run_sampling,
    pipeline.run_labeling,
    pipeline.run_reward,
    pipeline.run_ppo,
    lambda run: pipeline.run_ppo(run, "small"),
    pipeline.run_evaluation,
)


def chosen(folder: Path) -> RunSettings:
    model = {"name": "embedded:tiny", "dtype": "auto", "max_length": 64}
    return settings(folder, method="lora", ppo=PPO, model=model, variants={"small": {"method": "lora"}})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    write_data(folder)
    do(chosen(folder), *STEPS)
    return folder / "runs" / "small"


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name.replace(".base.", "."): value for name, value in model.named_parameters() if ".lora_" not in name}


def test_the_end_opens_as_a_plain_model_and_as_a_policy(run: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(run / "ppo" / "final")
    shared, adapter, _ = open_policy(run)
    assert adapter is None
    ours = weights(shared.backbone.model)
    assert all(torch.equal(value, ours[name]) for name, value in plain.named_parameters())
    ids = torch.arange(6)[None]
    assert torch.allclose(shared.backbone.model(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-5)
    directory, adapter, _ = open_any(str(run / "ppo" / "final"))
    assert adapter is None and directory.backbone.layer_count == shared.backbone.layer_count


def test_the_last_checkpoint_is_the_end(run: Path, tmp_path: Path) -> None:
    shared, adapter, _ = open_policy(run, checkpoint=2)
    assert adapter == REFERENCE
    merge_policy(run, tmp_path / "at", checkpoint=2)
    merge_policy(run, tmp_path / "end")
    at, end = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("at", "end"))
    assert all(torch.equal(at[name], end[name]) for name in end)
    first, _, _ = open_policy(run, checkpoint=1)
    assert not torch.equal(first.backbone.head_weight, shared.backbone.head_weight)


def test_a_rank_with_a_part_of_the_base_does_not_open_a_checkpoint_alone(run: Path) -> None:
    shared: Any = SimpleNamespace(loaded=SimpleNamespace(sharded=True))
    with pytest.raises(RunError, match=r"--checkpoint 1: ppo.method is full, .* give this command one process"):
        load_policy_at(shared, run, 1, "full")


def test_the_evaluation_measures_it_beside_a_variant_with_an_adapter(run: Path) -> None:
    done = do(chosen(run.parent.parent), lambda each: evaluate_policies(each, checkpoint=1))
    rows = [json.loads(line) for line in (done.path / "evaluation" / "samples.jsonl").read_text().splitlines()]
    assert {row["policy"] for row in rows} == {"sft", "ppo", "arm:small", "ppo@1"}
    assert all(row["score"] is not None for row in rows)
    moved = {policy: [row["reference_kl"] for row in rows if row["policy"] == policy] for policy in ("sft", "ppo")}
    assert not any(moved["sft"]) and any(moved["ppo"])


@pytest.mark.slow
def test_every_verb_that_opens_a_run_opens_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = iter(["sun song", None])
    talk(str(run), lambda: next(answers))
    assert main(["evaluate", str(run)]) == 0
    assert main(["export", str(run), "--to", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert main(["report", str(run)]) == 0 and (run / "report.html").is_file()
    assert main(["plan", str(run)]) == 0
    assert main(["check", str(run)]) == 0
    capsys.readouterr()


@pytest.mark.slow
def test_it_repeats(run: Path) -> None:
    assert all(found.same for found in verify_run(run, 1))


@pytest.mark.slow
def test_the_plan_counts_the_copy(run: Path) -> None:
    plan = make_plan(chosen(run.parent.parent), process_bytes=0.0)
    ppo, variant = ({each.phase: each for each in plan.phases}[name] for name in ("ppo", "arms/small"))
    numbers = next(row[2] for row in plan.weights if row[0] == "the copy of the base that PPO trains")
    update, plainly = (next(m for m in each.moments if m.name == "update").parts for each in (ppo, variant))
    assert update["base weights"] == 2 * plainly["base weights"] == 2 * 4 * numbers
    assert update["gradients"] == 4 * numbers and update["optimizer moments"] == 8 * numbers
    assert next(m for m in ppo.moments if m.name == "checkpoint").parts["temporaries"] == 24 * numbers


def test_the_base_is_float32_wherever_all_weights_are_trained() -> None:
    values = {"name": "x", "model": {"name": "x"}, "data": {}}
    assert RunSettings.model_validate(values).model.dtype == "auto"
    for given in ({"ppo": {"method": "full"}}, {"variants": {"all": {"method": "full"}}}):
        assert RunSettings.model_validate(values | given).model.dtype == "float32"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "x", "dtype": "bfloat16"}}, "ppo.method is full, and model.dtype bfloat16 cannot hold"),
        ({"rollouts": {"addresses": ["http://127.0.0.1:1"]}}, "load only adapters"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], message: str) -> None:
    values = {"name": "x", "model": {"name": "x"}, "data": {}, "ppo": {"method": "full"}, **changes}
    with pytest.raises(ValidationError, match=message):
        RunSettings.model_validate(values)
