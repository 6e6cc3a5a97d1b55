"""summary.json: exactly the agreed keys, numbers where they are known, null where not."""

import json
from pathlib import Path
from typing import Any

import pytest

from triphase.reports.summary import write_summary

KEYS = {
    "seconds": None,
    "peak_gb": None,
    "labelers": {"agreement"},
    "reward_model": {
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "noise_ceiling",
        "longer_wins",
        "ece",
        "temperature",
        "ece_scaled",
        "length_correlation",
        "accuracy_of_like_length",
        "better_than_chance",
        "finding",
    },
    "sft": {"gold_mean"},
    "ppo": {
        "gold_mean",
        "best_iteration",
        "best_iteration_gold",
        "fell_from_its_best",
        "gold_win_rate",
        "gold_win_rate_low",
        "gold_win_rate_high",
        "proxy_gain",
        "proxy_gain_low",
        "proxy_gain_high",
        "proxy_gain_deviations",
        "scored_by",
        "reference_kl",
        "mean_length",
        "eos_rate",
    },
    "alarms": None,
    "versions": None,
    "seed": None,
    "sha256": None,
}


def summary(directory: Path) -> dict[str, Any]:
    found = json.loads(write_summary(directory).read_text())
    assert isinstance(found, dict)
    return found


def check_keys(found: dict[str, Any]) -> None:
    assert set(found) - {"variants"} == set(KEYS)
    for key, inner in KEYS.items():
        assert inner is None or set(found[key]) == inner


def test_a_finished_run(run_directory: Path) -> None:
    found = summary(run_directory)
    check_keys(found)
    assert found["seconds"] == pytest.approx(692.0) and found["peak_gb"] == 2.41 and found["seed"] == 0
    assert found["labelers"]["agreement"] == 0.734
    reward, ppo = found["reward_model"], found["ppo"]
    assert reward["accuracy_low"] < reward["accuracy"] < reward["accuracy_high"] < reward["noise_ceiling"] == 0.842
    assert ppo["gold_win_rate_low"] < ppo["gold_win_rate"] < ppo["gold_win_rate_high"]
    assert found["versions"]["torch"] == "2.13.0"
    variant = found["variants"]["no-penalty"]
    assert set(variant) < set(ppo) and variant["scored_by"] == "the reward model"
    assert variant["gold_mean"] != ppo["gold_mean"] and variant["reference_kl"] > ppo["reference_kl"]
    assert set(found["alarms"]) == {"ppo", "arm:no-penalty"}
    assert any("variants.no-penalty.kl_coefficient" in alarm["remedy"] for alarm in found["alarms"]["arm:no-penalty"])
    for alarm in found["alarms"]["arm:no-penalty"]:
        assert {"name", "iteration", "lasting", "numbers", "message", "remedy", "samples"} <= set(alarm)


def test_an_empty_run_has_the_same_keys_and_no_invented_number(tmp_path: Path) -> None:
    found = summary(tmp_path)
    check_keys(found)
    assert found["seconds"] is None and found["versions"] == {}
    assert all(value is None for key in ("labelers", "reward_model", "sft", "ppo") for value in found[key].values())


def test_figures_by_hand(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "reward").mkdir()
    rows = [
        # prompt, policy, sample, finished, tokens, gold, score, reference KL
        ("a", "sft", 0, True, 10, 0.0, 0.0, 0.0),
        ("a", "sft", 1, False, 20, 1.0, 0.5, 0.0),
        ("a", "ppo", 0, True, 12, 1.0, 1.5, 3.0),
        ("b", "sft", 0, True, 10, 3.0, 1.0, 0.0),
        ("b", "ppo", 0, True, 16, 2.0, 2.0, 5.0),
        ("b", "ppo", 1, False, 32, 4.0, 2.0, 7.0),
    ]
    names = ("prompt_id", "policy", "sample", "finished", "tokens", "gold", "score", "reference_kl")
    lines = [{**dict(zip(names, row, strict=True)), "prompt": "?", "response": "!"} for row in rows]
    (tmp_path / "evaluation" / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pair = {
        "prompt_id": "a",
        "score_first": 1.0,
        "score_second": 1.0,
        "target": 1.0,
        "words_first": 2,
        "words_second": 1,
    }
    (tmp_path / "reward" / "heldout.jsonl").write_text(json.dumps(pair) + "\n")
    (tmp_path / "timings.json").write_text(json.dumps({"sft": 2.5, "ppo": 4.0, "peak_gb": 1.5}))
    found = summary(tmp_path)
    assert found["seconds"] == 6.5
    assert found["sft"]["gold_mean"] == 1.75  # prompts alike: (0.5 + 3) / 2
    ppo = found["ppo"]
    assert ppo["gold_mean"] == 2.0  # (1 + 3) / 2
    assert ppo["gold_win_rate"] == 0.625  # a: a win and a tie of two → 0.75; b: a loss and a win → 0.5
    assert (ppo["gold_win_rate_low"], ppo["gold_win_rate_high"]) == (0.5, 0.75)
    assert ppo["proxy_gain"] == pytest.approx(1.125)  # a: 1.5 − 0.25; b: 2 − 1
    # The start's scores 0, 0.5 and 1 have variance 1/6, so the gain is 1.125·√6 of their deviations.
    assert ppo["proxy_gain_deviations"] == pytest.approx(1.125 * 6**0.5)
    assert (ppo["reference_kl"], ppo["mean_length"]) == (5.0, 20.0)
    assert ppo["eos_rate"] == pytest.approx(2 / 3)
    reward = found["reward_model"]
    assert (reward["accuracy"], reward["longer_wins"], reward["ece"]) == (0.5, 1.0, 0.0)
    assert reward["accuracy_low"] is None


def test_a_measured_total_wins_over_the_sum(tmp_path: Path) -> None:
    (tmp_path / "timings.json").write_text(json.dumps({"sft": 2.5, "total": 9.0}))
    assert summary(tmp_path)["seconds"] == 9.0
