"""`--checkpoint STEP`: the policy after an iteration of PPO, if it is kept; the one that an alarm names is kept."""

import json
from pathlib import Path

import pytest
from tests.runs.small_run import do, settings, write_data

from triphase.cli.chat import talk
from triphase.cli.main import main
from triphase.models.roles import POLICY
from triphase.runs import pipeline
from triphase.runs.conversation import conversation_with
from triphase.runs.opening import open_policy
from triphase.training.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which iterations 2 and 3 of PPO are kept."""
    folder = tmp_path_factory.mktemp("kept")
    write_data(folder)
    ppo = {"iterations": 3, "batch_size": 8, "minibatch_size": 8, "epochs": 1, "max_response_tokens": 10}
    kept = {"keep": 3, "keep_best": 0}  # one of them was the spare of the last, and goes at the end
    variants = {"long": {"iterations": 4, "kl_coefficient": 0.5}}
    do(settings(folder, method="lora", ppo=ppo, variants=variants, checkpoints=kept), pipeline.run_all)
    return folder / "runs" / "small"


def test_the_policy_has_the_weights_of_the_checkpoint(run: Path) -> None:
    for step in (2, 3):
        shared, adapter, _ = open_policy(run, step)
        tensors = load_checkpoint(run / "ppo" / "checkpoints", step).tensors
        assert adapter == POLICY
        for name, value in shared.adapters.state(POLICY).items():
            assert (value == tensors[f"parameter.{name}"]).all()
    last, _, _ = open_policy(run)
    assert all(
        (last.adapters.state(POLICY)[name] == value).all() for name, value in shared.adapters.state(POLICY).items()
    )


@pytest.mark.parametrize("command", [["chat"], ["export", "--to", "gone"], ["evaluate"]])
def test_a_checkpoint_that_is_not_kept_is_one_line_with_those_that_are(
    run: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command[0], str(run), *command[1:], "--checkpoint", "1"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: --checkpoint 1: ") and "there are 2, 3" in said


def test_evaluation_chat_and_export_take_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "evaluation" / "samples.jsonl").read_text()
    assert main(["evaluate", str(run), "--checkpoint", "2"]) == 0
    rows = [json.loads(line) for line in (run / "evaluation" / "samples.jsonl").read_text().splitlines()]
    assert [row["policy"] for row in rows].count("ppo@2") == [row["policy"] for row in rows].count("ppo") > 0
    assert (run / "evaluation" / "samples.jsonl").read_text().startswith(before)
    assert "PPO, iteration 2" in (run / "report.html").read_text()
    assert main(["export", str(run), "--to", str(tmp_path / "out"), "--checkpoint", "2"]) == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()
    answers = iter(["sun song", None])
    talk([conversation_with(str(run), 2)], [""], lambda: next(answers))


def test_a_variant_opens_at_its_own_iterations(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = run / "arms" / "long" / "checkpoints"
    for step in (3, 4):
        shared, adapter, _ = open_policy(run, step, "long")
        tensors = load_checkpoint(kept, step).tensors
        assert all(
            (value == tensors[f"parameter.{name}"]).all() for name, value in shared.adapters.state(adapter).items()
        )
    own = (open_policy(run, 3, policy)[0].adapters.state(POLICY).values() for policy in ("ppo", "long"))
    assert any((one != other).any() for one, other in zip(*own, strict=True))  # of the main run, and of the variant
    for policy, step, problem in (
        ("long", "2", "no such checkpoint of the variant long; there are 3, 4"),
        ("sft", "3", "is an iteration of ppo"),
        ("long", "best", "applies to the main PPO run only"),
    ):
        assert main(["chat", str(run), "--policy", policy, "--checkpoint", step]) == 2
        assert problem in capsys.readouterr().err
    assert main(["export", str(run), "--to", str(tmp_path / "at"), "--variant", "long", "--checkpoint", "3"]) == 0
    assert main(["export", str(run), "--to", str(tmp_path / "last"), "--variant", "long"]) == 0
    assert main(["export", str(run), "--to", str(tmp_path / "adapter"), "--arm=long", "--adapter"]) == 0
    assert "note: --arm is now --variant" in capsys.readouterr().err
    card = (tmp_path / "last" / "README.md").read_text()
    assert "| `ppo.kl_coefficient` | 0.5 |" in card and "Measured" not in card  # figures are the main run's
    files = [tmp_path / name / "model.safetensors" for name in ("at", "last")]
    assert files[0].read_bytes() != files[1].read_bytes()
    named = run / "arms" / "long" / "final" / "adapter_model.safetensors"
    assert (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes() == named.read_bytes()
    assert main(["export", str(run), "--to", str(tmp_path / "no"), "--variant", "lomg"]) == 2
    assert "has no such variant; it has long" in capsys.readouterr().err
    sides = [f"{run}/arms/long/checkpoints/000003", f"{run}/arms/long"]
    assert main(["compare", *sides, "--to", str(tmp_path / "both"), "--max-prompts", "2"]) == 0
    assert main(["compare", f"{run}/arms/long/checkpoints/000001", str(run)]) == 2
    assert "there are 3, 4" in capsys.readouterr().err


def test_a_model_has_no_checkpoints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "embedded:tiny", "--checkpoint", "2"]) == 2
    assert "only a run has checkpoints" in capsys.readouterr().err
