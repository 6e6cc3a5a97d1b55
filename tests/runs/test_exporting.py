"""The merged policy of a run is an ordinary checkpoint with the policy's outputs."""

from pathlib import Path

import pytest
import torch
from tests.runs.small_run import do, settings, write_data
from transformers import AutoModelForCausalLM, AutoTokenizer

from triphase.cli.main import main
from triphase.errors import RunError
from triphase.runs import pipeline
from triphase.runs.exporting import copy_adapter, merge_policy
from triphase.runs.opening import open_policy
from triphase.training.sealed import find_damage


@pytest.mark.parametrize("method", ["full", "lora"])
def test_plain_transformers_gives_the_logits_of_the_policy(
    method: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_data(tmp_path)
    chosen, run = settings(tmp_path, method=method), tmp_path / "runs" / "small"
    do(chosen, pipeline.run_sft)
    (copy_adapter if method == "lora" else merge_policy)(run, tmp_path / "first")
    assert "has no PPO policy yet; this is its SFT policy" in caplog.text
    assert "imitate the demonstrations" in (tmp_path / "first" / "README.md").read_text()
    do(chosen, pipeline.run_sampling, pipeline.run_labeling, pipeline.run_reward, pipeline.run_ppo)
    merge_policy(run, tmp_path / "merged")
    assert find_damage(tmp_path / "merged") is None
    cards = [(tmp_path / name / "README.md").read_text() for name in ("first", "merged")]
    assert all("| `adapters` | layers 2, rank " in card for card in cards)
    shared, adapter, _ = open_policy(run)
    assert adapter == "policy"
    ids = torch.tensor([[3, 4, 5, 6, 7, 8]])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        merged = model(input_ids=ids).logits
        bare = shared.backbone.model(input_ids=ids).logits
        with shared.role(adapter):
            policy = shared.backbone.model(input_ids=ids).logits
    assert torch.allclose(merged, policy, rtol=0, atol=1e-5)
    assert not torch.allclose(merged, bare, atol=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").pad_token_id == shared.template.pad_id


def test_a_run_on_demonstrations_alone_has_no_reward_model_and_no_ppo_policy_to_wait_for(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_data(tmp_path)
    data = {"demonstrations": [{"path": str(tmp_path / "demonstrations.jsonl")}]}
    do(settings(tmp_path, method="lora", data=data, labeling={"source": "none"}), pipeline.run_sft)
    run = tmp_path / "runs" / "small"
    with pytest.raises(RunError, match="small: has no reward model, and trains none: the data is demonstrations alone"):
        merge_policy(run, tmp_path / "scorer", what="reward")
    with pytest.raises(RunError, match="small: has no reward model, and trains none: the data is demonstrations alone"):
        copy_adapter(run, tmp_path / "scorer", what="reward")
    merge_policy(run, tmp_path / "policy")
    assert "has no PPO policy yet" not in caplog.text
    monkeypatch.setattr("triphase.cli.deferred.conversation_with", lambda *_: None)
    monkeypatch.setattr("triphase.cli.chat.talk", lambda *_: None)
    assert main(["chat", str(run)]) == 0
    assert capsys.readouterr().err == ""


def test_a_run_that_has_trained_no_policy_does_not_export_the_unchanged_model(tmp_path: Path) -> None:
    write_data(tmp_path)
    chosen = settings(tmp_path, method="none")
    run, to = tmp_path / "runs" / "small", tmp_path / "merged"
    do(chosen, pipeline.run_sampling)
    refused = r"small: has not trained a policy, only the unchanged embedded:tiny; run `triphase run .*small`$"
    for what in ("policy", "sft"):
        with pytest.raises(RunError, match=refused):
            merge_policy(run, to, what=what)
    do(chosen, pipeline.run_labeling, pipeline.run_reward)
    with pytest.raises(RunError, match=r"run `triphase run .*small`, or export its reward model with --what reward$"):
        merge_policy(run, to)
    with pytest.raises(RunError, match=r"has no policy yet; run .* reward model with --what reward$"):
        copy_adapter(run, to)
    assert not to.exists()
    merge_policy(run, to, what="reward")
    do(chosen, pipeline.run_ppo)
    merge_policy(run, tmp_path / "policy")
