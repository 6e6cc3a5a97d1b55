"""What scored a run is called by its name, and a reward model is spoken of only where one was at work."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from triphase.cli.result_screen import result_lines
from triphase.reports.contents import read_run
from triphase.reports.findings import find
from triphase.reports.page import page_of
from triphase.reports.scored_by import has_own_scorer, score_of, scorer_of, uses_reward_model
from triphase.reports.summary import summary_of
from triphase.reports.verdict import verdict_of

FUNCTION = {"kind": "function", "function": "lengths:brevity"}


@pytest.mark.parametrize(
    ("scorer", "name"),
    [
        ({}, "the reward model"),
        ({"kind": "model"}, "the reward model"),
        ({"function": "lengths:brevity"}, "the function lengths:brevity"),
        ({"kind": "remote", "address": "http://a:1"}, "the server http://a:1"),
        ({"kind": "mine"}, "the scorer mine"),
        (None, "the reward model"),
        ("damaged", "the reward model"),
    ],
)
def test_what_scores_has_a_name(scorer: object, name: str) -> None:
    assert scorer_of({"ppo": {"scorer": scorer}}) == name
    by_model = name == "the reward model"
    assert uses_reward_model({"ppo": {"scorer": scorer}}) is by_model
    assert score_of({"ppo": {"scorer": scorer}}) == ("the reward model's score" if by_model else f"the score of {name}")


def test_a_variant_that_changes_options_alone_keeps_the_main_runs_scorer() -> None:
    settings = {"ppo": {"scorer": FUNCTION}, "variants": {"a": {"scorer": {"options": {"x": 1}}}, "b": {}}}
    assert not uses_reward_model(settings, "a") and not uses_reward_model(settings, "b")
    settings["variants"] = {"a": {"scorer": {"kind": "model"}}}
    assert uses_reward_model(settings, "a") and not uses_reward_model(settings)


def test_a_run_without_a_reward_model_speaks_of_none(run_directory: Path) -> None:
    config = yaml.safe_load((run_directory / "config.yaml").read_text())
    config["settings"].setdefault("ppo", {})["scorer"] = FUNCTION
    (run_directory / "config.yaml").write_text(yaml.safe_dump(config))
    run = replace(read_run(run_directory), reward=[], pairs=[], calibration=None, labeling=None)
    page = page_of(run)
    assert "None: responses are scored by the function lengths:brevity" in page
    assert "Dashed lines are the score of the function lengths:brevity" in page
    assert "reward model's" not in page and "not run yet" not in page and "not been trained" not in page
    found = find(run)
    assert "the reward model" not in " ".join(verdict_of(run, found).sentences)
    assert "the score of the function lengths:brevity" in " ".join(verdict_of(run, found).sentences)
    ppo = dict(result_lines(summary_of(run, found)))["PPO"]
    assert "score of the function lengths:brevity " in ppo and "reward model" not in ppo


def test_a_weak_reward_model_that_ppo_did_not_follow_casts_no_doubt_on_it(run_directory: Path) -> None:
    run = read_run(run_directory)
    weak = replace(run, pairs=[replace(pair, score_first=1 - 2 * pair.target, score_second=0.0) for pair in run.pairs])
    assert "PPO has followed this reward model" in page_of(weak)
    other = {**run.settings, "ppo": {**run.settings.get("ppo", {}), "scorer": FUNCTION}}
    assert "PPO has followed this reward model" not in page_of(replace(weak, settings=other))


def test_scores_of_another_unit_are_no_baseline(run_directory: Path) -> None:
    run = read_run(run_directory)
    name = next(policy for policy in run.policies if policy.startswith("arm:"))
    assert find(run).policies[name].proxy_gain is not None and not has_own_scorer(run.settings, name)
    other = {**run.settings, "variants": {name.removeprefix("arm:"): {"scorer": FUNCTION}}}
    lost = replace(run, settings=other, baselines={})
    assert has_own_scorer(other, name) and find(lost).policies[name].proxy_gain is None
    assert not has_own_scorer({"ppo": {"scorer": FUNCTION}, "variants": {"a": {"scorer": {"options": {}}}}}, "sft")
