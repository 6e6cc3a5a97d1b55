"""A reward model no better than chance, or than length, stops the run before PPO; the same command continues."""

import json
from pathlib import Path

import pytest
from tests.runs.small_run import do, settings, write_data

from triphase.cli import label
from triphase.cli.main import main
from triphase.records.types import Ranking
from triphase.runs import pipeline, reward_gate
from triphase.runs.reward_gate import RewardModelRefused, require_reward_model
from triphase.settings.schema import RunSettings
from triphase.store import open_store

PEOPLE = {"source": "people", "overlap_share": 0.5, "required_share": 0.5}
BEFORE = (pipeline.run_sft, pipeline.run_sampling, pipeline.run_labeling, pipeline.run_reward)


def chosen(folder: Path, required: bool = True) -> RunSettings:
    made = settings(folder, labeling=PEOPLE)
    reward = made.reward.model_copy(update={"require_better_than_chance": required})
    return made.model_copy(update={"reward": reward})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with a reward model, before PPO."""
    write_data(tmp_path)
    do(chosen(tmp_path), *BEFORE[:2])
    label.simulate(str(tmp_path / "runs" / "small"), labelers=2, gold="grammar")
    do(chosen(tmp_path), *BEFORE[2:])
    return tmp_path


def plant(folder: Path, *, right: int, prompts: int, longer: int = 0, tie: bool = False) -> None:
    """Held-out lines: the score is right on the first prompts, the longer is preferred on the first ``longer``."""
    lines = [
        {
            "prompt_id": f"p{number}",
            "score_first": 1.0 if number < right else -1.0,
            "score_second": 0.0,
            "target": 0.5 if tie else 1.0,
            "words_first": 9 if number < longer else 1,
            "words_second": 5,
        }
        for number in range(prompts)
    ]
    path = folder / "runs" / "small" / "reward" / "heldout.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def rank_once_more(run: Path) -> None:
    with open_store(run) as store:
        answers = [response for response in store.responses() if response.prompt_id == store.responses()[0].prompt_id]
        places = {response.id: place for place, response in enumerate(answers, start=1)}
        store.add_rankings([Ranking("r-new", answers[0].prompt_id, "somebody", places, tuple(places), 1e9)])


def ppo_has_begun(folder: Path) -> bool:
    return (folder / "runs" / "small" / "ppo" / "checkpoints").exists()


def test_it_stops_says_the_figures_and_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = folder / "runs" / "small"
    for right, longer, words in (
        (20, 0, "no better than chance: correct on 50 %"),
        (4, 0, "worse than chance: correct on 10 %"),
        (30, 30, "no better than preferring the longer response: correct on 75 %"),
    ):
        plant(folder, right=right, prompts=40, longer=longer)
        with pytest.raises(RewardModelRefused) as refused:
            do(chosen(folder), pipeline.run_ppo)
        said = str(refused.value)
        assert words in said and "40 held-out prompts" in said and "95 % interval" in said and "longer" in said
        assert "reward.require_better_than_chance: false" in said and "\n" not in said
        assert not ppo_has_begun(folder)
    # The command line: one line, exit code 2; then the same stop again, as nothing has changed.
    before = (run / "reward" / "final" / "manifest.json").read_bytes()
    assert main(["run", str(run)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: PPO is not started.")
    assert (run / "reward" / "final" / "manifest.json").read_bytes() == before
    # More labels: the refused model is set aside, the phase begins anew.
    rank_once_more(run)
    do(chosen(folder), pipeline.run_reward)
    assert (run / "reward-refused-1" / "verdict.json").is_file() and not (run / "reward" / "verdict.json").exists()
    assert (run / "reward" / "final" / "manifest.json").is_file()
    # The setting: the same run goes on.
    plant(folder, right=20, prompts=40)
    with pytest.raises(RewardModelRefused):
        do(chosen(folder), pipeline.run_ppo)
    do(chosen(folder, required=False), pipeline.run_reward, pipeline.run_ppo)
    assert ppo_has_begun(folder) and not (run / "reward-refused-2").exists()
    do(chosen(folder), pipeline.run_reward, pipeline.run_ppo)  # PPO that has begun is not stopped


def test_what_cannot_be_judged_is_said_and_goes_on(folder: Path) -> None:
    for planted, words in (
        ({"right": 0, "prompts": 0}, "cannot be determined: no held-out prompt has a comparison"),
        ({"right": 4, "prompts": 9, "tie": True}, "cannot be determined: no held-out prompt has a comparison"),
        ({"right": 1, "prompts": 3}, "at least 6 are needed"),
    ):
        plant(folder, **planted)
        assert words in " ".join(do(chosen(folder), require_reward_model).progress.notes)
    plant(folder, right=39, prompts=40)
    assert not do(chosen(folder), require_reward_model).progress.notes


def test_what_the_fit_of_the_head_found_is_kept(folder: Path) -> None:
    from triphase.monitoring.metrics import read_metrics

    reward = folder / "runs" / "small" / "reward"
    head, rows = json.loads((reward / "head.json").read_text()), read_metrics(reward / "metrics.jsonl")
    assert len(head["curve"]) == 21 and [head["penalty"], head["loss"]] in head["curve"]
    assert rows[0]["reward/head_penalty"] == head["penalty"] and rows[0]["reward/head_loss"] == head["loss"]
    assert rows[0]["reward/head_heldout_loss"] == head["reward/heldout_loss"]
    assert not any("reward/head_penalty" in row for row in rows[1:])


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"1", b"[]", b"{}", b"\xff\xfe"])
def test_a_damaged_verdict_is_told_and_judged_again(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "verdict.json"
    path.write_bytes(content)
    assert reward_gate._refused(path) is None
    assert "verdict.json is damaged; the reward model is evaluated again" in caplog.text
