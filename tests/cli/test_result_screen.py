"""The final screen shows what is known, and its next command fits the state of the run."""

import json
from pathlib import Path

import pytest

from triphase.cli.result_screen import next_command, print_result, result_lines
from triphase.reports.summary_file import keep_summary

SUMMARY = {
    "seconds": 431.6,
    "peak_gb": 2.94,
    "labelers": {"agreement": 0.73},
    "reward_model": {
        "accuracy": 0.71,
        "accuracy_low": 0.66,
        "accuracy_high": 0.76,
        "noise_ceiling": 0.78,
        "longer_wins": 0.55,
        "ece": 0.04,
    },
    "sft": {"gold_mean": 0.3},
    "ppo": {
        "gold_mean": 0.9,
        "gold_win_rate": 0.81,
        "gold_win_rate_low": 0.76,
        "gold_win_rate_high": 0.86,
        "proxy_gain": 1.4,
        "reference_kl": 7.9,
        "mean_length": 21.4,
        "eos_rate": 0.98,
    },
}


def config(run: Path, source: str) -> None:
    run.mkdir()
    data = {name: [{"path": f"{name}.jsonl"}] for name in ("demonstrations", "prompts", "preferences")}
    settings = {"name": run.name, "model": {"name": "m"}, "data": data, "labeling": {"source": source}}
    (run / "config.yaml").write_text(json.dumps({"settings": settings}))


def test_what_is_known_is_shown() -> None:
    assert dict(result_lines(SUMMARY)) == {
        "time": "7 min 12 s; at most 2.9 GB of memory",
        "labelers": "agree on 73 % of the pairs",
        "reward model": 'correct on 71 % of the held-out judgments (66–76); noise ceiling 78 %; "longer wins" 55 %',
        "PPO": "preferred to SFT in 81 % (76–86); gold score 0.30 → 0.90; reward model's score +1.40",
        "drift": "7.9 nats from the reference; 21 tokens per response; 98 % of them finished",
    }


def test_variants_are_shown_after_the_main_run() -> None:
    found = {
        "gold_mean": 0.4,
        "gold_win_rate": 0.6,
        "gold_win_rate_low": 0.5,
        "gold_win_rate_high": 0.7,
        "proxy_gain": 2.0,
        "reference_kl": 12.0,
        "scored_by": "the rule length",
    }
    lines = dict(result_lines({**SUMMARY, "variants": {"no-penalty": found, "not-evaluated": {}}}))
    told = "preferred to SFT in 60 % (50–70); gold score 0.40; score of the rule length +2.00; 12.0 nats from the "
    told += "reference"
    assert list(lines)[-1] == "no-penalty" and lines["no-penalty"] == told


def test_responses_that_shrank_to_a_token_are_told_in_the_singular() -> None:
    assert dict(result_lines({"ppo": {"mean_length": 1.02}})) == {"drift": "1 token per response"}
    assert dict(result_lines({"ppo": {"mean_length": 0.2}})) == {"drift": "0 tokens per response"}


def test_a_gain_is_told_in_deviations_of_the_start_too() -> None:
    ppo = {"proxy_gain": 0.42, "proxy_gain_deviations": 1.2, "scored_by": "the rule sentiment"}
    told = "score of the rule sentiment +0.42 (+1.20 of its standard deviations at the start)"
    assert dict(result_lines({"ppo": ppo})) == {"PPO": told}
    assert dict(result_lines({"ppo": {"proxy_gain_deviations": 1.2}})) == {}
    known = {**ppo, "proxy_gain_low": 0.3, "proxy_gain_high": 0.55}
    assert "+0.42 (+0.30 to +0.55; +1.20 of its" in dict(result_lines({"ppo": known}))["PPO"]


def test_what_is_not_known_is_left_out() -> None:
    assert dict(result_lines({"seconds": 9.2, "ppo": {"reference_kl": None, "eos_rate": 1.0}, "sft": None})) == {
        "time": "9 s",
        "drift": "100 % of them finished",
    }
    assert dict(result_lines({})) == {}


@pytest.mark.parametrize(("source", "then"), [("people", "triphase label serve"), ("none", "triphase reward")])
def test_the_next_command(tmp_path: Path, source: str, then: str) -> None:
    run = tmp_path / "my"
    config(run, source)
    for done, command in (
        ("", "triphase sft"),
        ("sft", "triphase sample" if source == "people" else then),
        ("labels.sqlite", then),
        ("reward", "triphase ppo"),
        ("ppo", "triphase evaluate"),
    ):
        if "." in done:
            (run / done).touch()
        elif done:
            (run / done / "final").mkdir(parents=True)
        assert next_command(run).startswith(f"{command} {run}")
    (run / "report.html").touch()
    assert next_command(run) == f"triphase chat {run}"
    # The newest policy is that of the last round that has one.
    for number in (2, 3):
        (run / "rounds" / str(number) / "ppo" / "final").mkdir(parents=True)
    (run / "rounds" / "4").mkdir()
    assert next_command(run) == f"triphase chat {run / 'rounds' / '3'}"


def test_each_further_round_has_its_line() -> None:
    rates = {"accuracy_before": {"value": 0.6, "low": 0.5, "high": 0.7}, "accuracy_after": {"value": 0.7}}
    ppo = {"gold_win_rate": 0.8, "gold_win_rate_low": 0.75, "gold_win_rate_high": 0.85, "reference_kl": 3.21}
    rounds = [
        {"round": 2, **rates, "ppo": ppo},
        {"round": 3, "accuracy_before": None, "accuracy_after": None, "ppo": None},
    ]
    lines = dict(result_lines({**SUMMARY, "rounds": rounds}))
    assert lines["round 2"] == (
        "reward model correct on 60 % before, 70 % after it was retrained; preferred to SFT in 80 % (75–85); "
        "3.2 nats from the reference"
    )
    assert "round 3" not in lines
    assert lines["time"].startswith("7 min 12 s over 1 of 3 rounds")
    took = [
        {**each, "seconds": seconds, "peak_gb": 1.0 + seconds} for each, seconds in zip(rounds, (50, 1), strict=True)
    ]
    assert (
        dict(result_lines({**SUMMARY, "rounds": took}))["time"] == "8 min 03 s over 3 rounds; at most 51.0 GB of memory"
    )


def test_the_screen_is_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "my"
    config(run, "none")
    keep_summary(run / "summary.json", SUMMARY)
    print_result(run)
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 24
    assert f"next    triphase sft {run}" in shown and "73 %" in shown
    kept = (run / "summary.json").read_text()
    for text, problem in (
        (kept.replace("0.73", "0.93"), "was changed after it was written"),
        ("{}", "has no checksum"),
    ):
        (run / "summary.json").write_text(text)
        print_result(run)
        shown = " ".join(capsys.readouterr().out.split())  # long paths wrap
        assert f"summary.json {problem}" in shown and "93 %" not in shown


def test_a_doubtful_reward_model_and_a_run_past_its_best_are_said() -> None:
    reward = {**SUMMARY["reward_model"], "better_than_chance": False}  # type: ignore[dict-item]
    ppo = {**SUMMARY["ppo"], "best_iteration": 12, "fell_from_its_best": True}  # type: ignore[dict-item]
    lines = dict(result_lines({**SUMMARY, "reward_model": reward, "ppo": ppo}))
    assert lines["reward model"].endswith("not shown to be better than chance and length")
    assert lines["PPO"].endswith("past its peak, iteration 12")
    sound = dict(result_lines({**SUMMARY, "ppo": {**ppo, "fell_from_its_best": False}}))
    assert "past its peak" not in sound["PPO"]


def test_of_several_rounds_the_newest_policy_is_told_and_tried_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "r"
    config(run, "people")
    kept = json.loads((run / "config.yaml").read_text())
    kept["settings"] |= {"rounds": 3}
    (run / "config.yaml").write_text(json.dumps(kept))
    second = run / "rounds" / "2"
    for place in (run, second):
        for phase in ("sft", "reward", "ppo"):
            (place / phase / "final").mkdir(parents=True)
        (place / "report.html").write_text("")
    assert next_command(run) == f"triphase run {run}"  # the third is missing
    (run / "rounds" / "3" / "ppo" / "final").mkdir(parents=True)
    assert next_command(run) == f"triphase chat {run / 'rounds' / '3'}"
    newer = {"gold_mean": 1.2, "proxy_gain": 2.0, "reference_kl": 9.1}
    keep_summary(run / "summary.json", {**SUMMARY, "rounds": [{"round": 2, "ppo": newer}, {"round": 3}]})
    print_result(run)
    shown = " ".join(capsys.readouterr().out.split())
    assert "round 1 preferred to SFT in 81 %" in shown and "round 2 " in shown and "9.1 nats" in shown
    assert f"report {run / 'report.html'} report {second / 'report.html'}" in shown
