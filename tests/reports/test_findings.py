"""What is worked out of a run: budgets of the variants, the path of PPO, best of n."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from triphase.reports.contents import read_run
from triphase.reports.findings import Point, find, optimization_path
from triphase.reports.reward_quality import reliability


def test_path_of_ppo() -> None:
    rows = [
        {"step": 1, "ppo/reference_kl": -0.01, "ppo/proxy_score": 0.5, "ppo/gold_score": 0.25},
        {"step": 2, "ppo/reference_kl": 9.0, "ppo/proxy_score": 1.5},
        {"step": 3, "ppo/proxy_score": 1.5},
    ]
    assert optimization_path(rows) == [Point(1, 0.0, 0.5, 0.25), Point(2, 3.0, 1.5, None)]


def test_variants_have_their_own_kl_budget(finished_run: Path) -> None:
    run = read_run(finished_run)
    settings = {"ppo": {"kl_budget": 2.0}, "variants": {"no-penalty": {"kl_budget": 90.0}}}
    alarms = find(replace(run, settings=settings)).alarms
    assert "reference-kl" in {alarm.name for alarm in alarms["ppo"]}
    assert "reference-kl" not in {alarm.name for alarm in alarms["arm:no-penalty"]}
    inherited = find(replace(run, settings={**settings, "variants": {"no-penalty": {}}})).alarms["arm:no-penalty"]
    assert next(alarm for alarm in inherited if alarm.name == "reference-kl").numbers["limit"] == 2.0


def test_a_finished_run(finished_run: Path) -> None:
    run = read_run(finished_run)
    found = find(run)
    assert list(found.policies) == run.policies == ["sft", "ppo", "arm:no-penalty"]
    assert found.policies["sft"].gold_win_rate is None and found.policies["ppo"].gold_win_rate
    assert [point.n for point in found.best_of_n] == [1, 2, 4]
    golds = [sample.gold for sample in run.samples if sample.policy == "sft" and sample.gold is not None]
    mean = sum(golds) / len(golds)
    deviation = math.sqrt(sum((gold - mean) ** 2 for gold in golds) / len(golds))
    assert found.gold_scale == pytest.approx((mean, deviation))
    assert found.alarms["ppo"] == []
    assert found.alarms["arm:no-penalty"][0].name == "proxy-without-gold"


def test_the_intervals_follow_the_seed_of_the_run(finished_run: Path) -> None:
    run = read_run(finished_run)
    other = replace(run, settings={**run.settings, "seed": 5})
    assert find(run).reward.accuracy == find(run).reward.accuracy != find(other).reward.accuracy


def test_calibration_error_is_that_of_the_scores_as_they_were_trained(finished_run: Path) -> None:
    run = read_run(finished_run)
    assert run.calibration
    found, raw = find(run).reward.reliability, find(replace(run, calibration=None)).reward.reliability
    assert found and raw and found.error != raw.error
    assert found == reliability(run.pairs, scale=run.calibration["standard_deviation"])
