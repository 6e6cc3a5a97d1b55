"""`--checkpoint best`: chosen on held-out prompts without gold, stored next to the last policy."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.runs.small_run import do, ppo_alone, write_data

from triphase.cli.main import main
from triphase.models.roles import POLICY
from triphase.rewards.types import Scores
from triphase.runs import pipeline
from triphase.runs.checkpoint_selection import Candidate, _candidate
from triphase.runs.checkpoints import load_policy_at
from triphase.runs.opening import open_any, open_run
from triphase.training.finals import load_policy


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_data(folder)
    optimizer = {"learning_rate": 3e-2, "schedule": "constant"}
    chosen = ppo_alone(
        folder, ppo={"iterations": 3, "optimizer": optimizer, "kl_coefficient": 0.0}, checkpoints={"keep": 3}
    )
    do(chosen, pipeline.run_all)
    return folder / "runs"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs")) / "small"


def test_the_best_is_chosen_and_opens_everywhere(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["export", str(run), "--to", f"{run}-merged"], ["chat", str(run)]):
        assert main([*words, "--checkpoint", "best"]) == 2
        assert "has selected none yet; triphase evaluate" in capsys.readouterr().err
    assert main(["compare", f"{run}/ppo/best", str(run)]) == 2
    assert "none is selected yet" in capsys.readouterr().err

    assert main(["evaluate", str(run), "--checkpoint", "best"]) == 0
    choice = json.loads((run / "ppo" / "choice.json").read_text())
    scale = json.loads((run / "ppo" / "checkpoints" / "000003" / "values.json").read_text())["values"]["score_scale"]
    assert [each["step"] for each in choice["candidates"]] == [1, 2, 3] and choice["by"] == "score less KL"
    for each in choice["candidates"]:  # without a KL coefficient a nat costs a tenth of a deviation
        assert each["value"] == pytest.approx(each["score"] / scale["scale"] - 0.1 * each["reference_kl"])
    best = max(choice["candidates"], key=lambda each: each["value"])
    assert choice["step"] == best["step"]
    rows = [json.loads(line) for line in (run / "evaluation" / "samples.jsonl").read_text().splitlines()]
    assert f"ppo@{choice['step']}" in {row["policy"] for row in rows}

    shared = open_run(run).model()
    load_policy(shared, POLICY, run / "ppo" / "best")
    kept = {name: value.clone() for name, value in shared.adapters.state(POLICY).items()}
    load_policy_at(shared, run, choice["step"], "lora")
    assert all(torch.equal(value, kept[name]) for name, value in shared.adapters.state(POLICY).items())
    opened, adapter, _ = open_any(f"{run}/ppo/best")
    assert adapter is None and opened.template.end_id == shared.template.end_id
    assert main(["export", str(run), "--to", f"{run}-merged", "--checkpoint", "best"]) == 0
    assert (Path(f"{run}-merged") / "model.safetensors").is_file()
    before = (run / "ppo" / "choice.json").stat().st_mtime_ns
    assert main(["evaluate", str(run), "--checkpoint", "best"]) == 0
    assert (run / "ppo" / "choice.json").stat().st_mtime_ns == before  # among the same checkpoints it stays


def priced(run: Path, scores: Scores, baseline: Scores | None, **changes: object) -> Candidate:
    """A candidate with these scores at a KL of 5, of the run with other settings of PPO."""
    opened = open_run(run)
    opened.settings = opened.settings.model_copy(update={"ppo": opened.settings.ppo.model_copy(update=changes)})
    return _candidate(opened, 3, scores, 5.0, baseline, calibrated=baseline is not None)


def test_reward_model_and_witness_share_the_choice(run: Path) -> None:
    """Each in its own deviation, and no further than the SFT policy's scores go; the coefficient does not matter."""
    baseline = Scores((0.0, 2.0, 4.0, 2.0), monitors={"witness_score": (1.0, 2.0, 1.0, 2.0)})
    for coefficient in (0.0, 0.3):
        found = priced(
            run, Scores((3.0, 9.0), monitors={"witness_score": (0.0, 3.0)}), baseline, kl_coefficient=coefficient
        )
        assert (found.score, found.witness, found.reference_kl) == (6.0, 1.5, 5.0)
        assert found.value == pytest.approx(((3 + 4) / 2 / 2**0.5 + (0 + 2) / 2 / 0.5) / 2 - 0.05 * 5)
    alone = priced(run, Scores((3.0, 9.0)), Scores(baseline.total))
    assert alone.witness is None and alone.value == pytest.approx((3 + 4) / 2 / 2**0.5 - 0.05 * 5)


def test_a_nat_is_priced_in_deviations_of_the_sft_policys_scores(run: Path) -> None:
    """At least a tenth of one, whatever PPO divides scores by; the coefficient applies to scores as PPO uses them."""
    values = json.loads((run / "ppo" / "checkpoints" / "000003" / "values.json").read_text())["values"]
    unit = values["first_rollout"]["deviation"]
    assert unit == pytest.approx(values["score_scale"]["scale"]) and unit > 1
    for kind, coefficient, price in (
        ("calibrated", 0.05, 0.1 * unit), ("calibrated", 0.3, 0.3 * unit), ("running", 0.3, 0.3 * unit),
        ("batch", 0.0, 0.1 * unit), ("batch", 0.3, 0.3 * unit), ("raw", 0.0, 0.1 * unit), ("raw", 9.0, 9.0),
    ):  # fmt: skip
        found = priced(run, Scores((9.0, 7.0)), None, score_normalization=kind, kl_coefficient=coefficient)
        assert found.value == pytest.approx((8 - price * 5) / unit), (kind, coefficient)


def test_what_cannot_be_chosen(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "ppo" / "choice.json").write_text("{}")
    assert main(["evaluate", str(run), "--checkpoint", "best"]) == 2
    assert "choice.json is damaged" in capsys.readouterr().err
    (run / "ppo" / "choice.json").unlink()
    shutil.rmtree(run / "ppo" / "checkpoints")
    assert main(["evaluate", str(run), "--checkpoint", "best"]) == 2
    assert "keeps no checkpoint of PPO" in capsys.readouterr().err
