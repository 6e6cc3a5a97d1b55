"""One sentence for each policy: each is tried with figures that show the one thing and the contrary."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.reports.test_verdict import climbed_and_fell, samples

from triphase.reports.contents import RunContents, read_run
from triphase.reports.findings import find
from triphase.reports.policy_comparison import Sample
from triphase.reports.policy_verdicts import PolicyVerdict, policy_verdicts
from triphase.reports.reward_quality import ScoredPair

SURE = [ScoredPair(str(number), 1.0, 0.5, 1.0, 3, 3) for number in range(40)]
BELOW = [ScoredPair(str(number), 0.0, 0.5, 1.0, 3, 3) for number in range(40)]
COIN = [ScoredPair(str(number), number % 2, 0.5, 1.0, 3, 3) for number in range(40)]


@pytest.fixture
def empty(tmp_path: Path) -> RunContents:
    return read_run(tmp_path)


def verdicts(run: RunContents, **changes: Any) -> dict[str, PolicyVerdict]:
    changed = replace(run, **changes)
    return {each.policy: each for each in policy_verdicts(changed, find(changed))}


def test_better_worse_and_not_shown_to_differ(empty: RunContents) -> None:
    found = verdicts(
        empty,
        samples=samples(
            {"sft": [0.0] * 20, "ppo": [1.0] * 20, "arm:low": [-1.0] * 20, "arm:even": [1.0, -1.0] * 10},
            {"sft": 0, "ppo": 1, "arm:low": -1, "arm:even": 0},
        ),
    )
    assert list(found) == ["ppo", "arm:even", "arm:low"]
    assert found["ppo"].tone == "good"
    assert found["ppo"].sentence.startswith("better than the SFT policy: preferred in 100 % (84 to 100 %) by gold")
    assert "gold +1.00, proxy +1.00; 1.0 nats from the reference" in found["ppo"].sentence
    assert found["arm:even"].tone == "open" and "not shown to differ from the SFT policy" in found["arm:even"].sentence
    assert found["arm:low"].tone == "bad" and "worse than the SFT policy" in found["arm:low"].sentence
    assert not any(each.hacked for each in found.values())


def test_hacked_on_held_out_prompts_and_in_training(empty: RunContents) -> None:
    held_out = samples({"sft": [0.0] * 20, "ppo": [-1.0] * 20}, {"sft": 0, "ppo": 2})
    parted = verdicts(empty, samples=held_out)["ppo"]
    assert parted.hacked and parted.tone == "bad"
    assert parted.sentence.startswith("hacked: proxy +2.00, gold −1.00 on held-out prompts; preferred in 0 %")
    trained = verdicts(empty, variants={"far": climbed_and_fell(-1.0)})["arm:far"]
    assert trained.hacked and trained.tone == "bad"
    assert trained.sentence.startswith("hacked: proxy +") and ", gold −" in trained.sentence
    assert "since iteration 2" in trained.sentence
    sound = verdicts(empty, variants={"near": climbed_and_fell(1.3)})["arm:near"]
    assert not sound.hacked and sound.tone == "open" and "not evaluated" in sound.sentence


def test_past_its_best_without_a_higher_proxy_is_no_hacking(empty: RunContents) -> None:
    found = verdicts(
        empty,
        ppo=climbed_and_fell(0.15, proxy=0.0),
        samples=samples({"sft": [0.0] * 20, "ppo": [1.0] * 20}, {"sft": 0, "ppo": 0}),
    )["ppo"]
    assert not found.hacked and found.tone == "bad" and "gold fell by 0.8" in found.sentence


def test_without_gold_the_reward_model_is_held_against_what_is_known_of_it(empty: RunContents) -> None:
    blind = {"sft": [None] * 20, "ppo": [None] * 20}
    rose = verdicts(empty, samples=samples(blind, {"sft": 0, "ppo": 1}), pairs=SURE)["ppo"]
    assert rose.tone == "open"
    assert "whether people prefer it is unknown: the reward model's score rose by +1.00" in rose.sentence
    assert "the reward model is correct on 100 % (91 to 100 %) of the held-out judgments." in rose.sentence
    doubted = verdicts(empty, samples=samples(blind, {"sft": 0, "ppo": -1}), pairs=COIN)["ppo"]
    assert "score fell by −1.00" in doubted.sentence and "not shown to be better than chance" in doubted.sentence
    worse = verdicts(empty, samples=samples(blind, {"sft": 0, "ppo": 1}), pairs=BELOW)["ppo"].sentence
    assert (
        "correct on 0 % (0 to 9 %) of the held-out judgments, worse than chance" in worse and "not shown" not in worse
    )
    unknown = verdicts(empty, samples=samples(blind, {"sft": 0, "ppo": 0}))["ppo"]
    assert "which may be noise" in unknown.sentence and "unknown" in unknown.sentence


def test_a_doubted_reward_model_makes_nothing_green(empty: RunContents) -> None:
    held_out = samples({"sft": [0.0] * 20, "ppo": [1.0] * 20}, {"sft": 0, "ppo": 1})
    assert verdicts(empty, samples=held_out, pairs=SURE)["ppo"].tone == "good"
    assert verdicts(empty, samples=held_out, pairs=COIN)["ppo"].tone == "open"


def test_length_and_openings_are_said_where_they_moved(empty: RunContents) -> None:
    def answered(tokens: int, word: str) -> list[Sample]:
        return [
            Sample(str(n), "?", policy, 0, f"{own} day", True, count, 1.0, 0.0, 1.0)
            for n in range(20)
            for policy, own, count in (("sft", f"word{n}", 10), ("ppo", word or f"other{n}", tokens))
        ]

    longer = verdicts(empty, samples=answered(20, ""))["ppo"].sentence
    assert "the responses are 2.0 times as long as at the start" in longer and "alike" not in longer
    assert (
        "the responses are 60 % shorter than at the start" in verdicts(empty, samples=answered(4, ""))["ppo"].sentence
    )
    level = verdicts(empty, samples=answered(11, "friend"))["ppo"]
    assert "times as long" not in level.sentence and "shorter" not in level.sentence and level.tone == "bad"
    assert (
        "the responses have become alike: 100 % begin with “friend” "
        "(of SFT's, 5 % begin with “word0”, 0 % with “friend”)" in level.sentence
    )
