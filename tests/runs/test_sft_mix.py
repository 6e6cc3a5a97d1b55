"""`ppo.sft_mix` in a run: with demonstrations, or refused with a remedy."""

from pathlib import Path

import pytest
from tests.runs.small_run import ppo_alone, settings, write_data

from triphase.datacheck.demands import demands, holdings_of
from triphase.datacheck.run_data import RunData
from triphase.runs.dependence import settings_of


def test_without_demonstrations_it_is_refused_by_the_name_of_its_setting(tmp_path: Path) -> None:
    write_data(tmp_path)
    data = {"prompts": [{"path": str(tmp_path / "prompts.jsonl")}]}
    with pytest.raises(ValueError, match=r"ppo\.sft_mix is 0\.5, and data\.demonstrations is empty"):
        ppo_alone(tmp_path, ppo={"sft_mix": 0.5}, data=data)
    with pytest.raises(ValueError, match=r"variants\.mixed\.sft_mix is 2, and data\.demonstrations is empty"):
        ppo_alone(tmp_path, ppo={}, variants={"mixed": {"sft_mix": 2}}, data=data)


def test_demonstrations_that_are_all_held_out_are_none(tmp_path: Path) -> None:
    write_data(tmp_path)
    held = tmp_path / "held.jsonl"
    held.write_text('{"prompt": "sun song", "completion": "river", "split": "heldout"}\n')
    chosen = ppo_alone(
        tmp_path,
        ppo={"sft_mix": 0.5},
        data={"demonstrations": [{"path": str(held)}], "prompts": [{"path": str(tmp_path / "prompts.jsonl")}]},
    )
    holdings = holdings_of(chosen, RunData(chosen), ("ppo",))
    assert any("has no demonstration to train on" in line for line in demands(chosen, ("ppo",), holdings))


def test_ppo_reads_the_demonstrations_where_it_mixes_them_in_and_not_elsewhere(tmp_path: Path) -> None:
    write_data(tmp_path)
    for mix, reads in ((0.0, False), (0.5, True)):
        plain = settings(tmp_path, ppo={**PPO, "sft_mix": mix}).model_dump(mode="json")
        assert any(key.startswith("data.demonstrations") for key in settings_of("ppo", plain)) is reads


PPO = {"iterations": 2, "batch_size": 8, "minibatch_size": 8, "epochs": 1, "max_response_tokens": 10}
