"""The verdict states what the numbers show, and no more."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from triphase.reports.comparison import Labelers
from triphase.reports.contents import RunContents, read_run
from triphase.reports.findings import find
from triphase.reports.interval_wording import moved, percent_interval, signed
from triphase.reports.intervals import Interval
from triphase.reports.people_wins import PeopleWin
from triphase.reports.policy_comparison import Sample
from triphase.reports.policy_verdicts import is_hacked
from triphase.reports.reward_quality import ScoredPair
from triphase.reports.verdict import Verdict, verdict_of


@pytest.fixture
def empty(tmp_path: Path) -> RunContents:
    return read_run(tmp_path)


def samples(golds: dict[str, list[float | None]], scores: dict[str, float]) -> list[Sample]:
    return [
        Sample(str(prompt), "?", policy, 0, "!", True, 10, gold, scores[policy], 1.0)
        for policy, values in golds.items()
        for prompt, gold in enumerate(values)
    ]


def verdict(run: RunContents, **changes: Any) -> Verdict:
    changed = replace(run, **changes)
    return verdict_of(changed, find(changed))


def test_better(empty: RunContents) -> None:
    found = verdict(empty, samples=samples({"sft": [0.0] * 20, "ppo": [1.0] * 18 + [-1.0] * 2}, {"sft": 0, "ppo": 1}))
    assert found.tone == "good" and found.headline == "PPO's responses are preferred: they win 90 % of the comparisons"
    assert "even is 50 %" in found.sentences[0]
    assert found.sentences[1].startswith("Mean gold went from 0.00 to 0.80, a gain of +0.80")
    assert any(sentence.startswith("Reward hacking: none seen") for sentence in found.sentences)


def test_worse_with_a_higher_proxy_is_hacking(empty: RunContents) -> None:
    found = verdict(empty, samples=samples({"sft": [0.0] * 20, "ppo": [-1.0] * 20}, {"sft": 0, "ppo": 1}))
    assert found.tone == "bad" and "worse" in found.headline
    assert found.sentences[-1] == (
        "Reward hacking: yes. On held-out prompts the reward model's score changed by +1.00, gold by −1.00."
    )


def test_worse_with_a_lower_proxy_is_not(empty: RunContents) -> None:
    found = verdict(empty, samples=samples({"sft": [0.0] * 20, "ppo": [-1.0] * 20}, {"sft": 0, "ppo": -1}))
    assert found.tone == "bad" and any("none seen" in sentence for sentence in found.sentences)


def test_an_interval_across_a_half_shows_nothing(empty: RunContents) -> None:
    found = verdict(empty, samples=samples({"sft": [0.0] * 20, "ppo": [1.0, -1.0] * 10}, {"sft": 0, "ppo": 1}))
    assert found.tone == "open" and found.headline == "No difference shown between PPO and the SFT policy"


def test_one_prompt_is_too_few(empty: RunContents) -> None:
    assert "too few" in verdict(empty, samples=samples({"sft": [0.0], "ppo": [1.0]}, {"sft": 0, "ppo": 1})).headline


def test_over_optimized_is_the_headline_whatever_the_sft_policy_is_beaten_by(empty: RunContents) -> None:
    rows = [
        {"step": step, "ppo/proxy_score": 0.1 * step, "ppo/gold_score": 1.0 if step < 8 else 1.5 - 0.1 * step}
        for step in range(1, 16)
    ]
    held_out = samples({"sft": [0.0] * 20, "ppo": [1.0] * 20}, {"sft": 0, "ppo": 1})
    found = verdict(empty, ppo=rows, samples=held_out)
    assert found.tone == "bad" and found.headline == (
        "Over-optimized: gold fell from 1.00 at iteration 3 to 0.10 at the end, while the reward model's score rose"
    )
    assert "earlier checkpoint" in found.sentences[0] and "PPO wins 100 %" in found.sentences[1]
    assert any("Reward hacking: yes. In training" in sentence for sentence in found.sentences)


def climbed_and_fell(end: float, *, proxy: float = 1.0) -> list[dict[str, float]]:
    """Gold rises from 0 to 1 in 20 iterations and goes to ``end`` in 20 more, with the noise of 64 episodes."""
    noise = random.Random(3).gauss
    rows = []
    for step in range(1, 41):
        gold = step / 20 if step <= 20 else 1 + (end - 1) * (step - 20) / 20
        rows.append(
            {
                "step": step,
                "ppo/episodes": 64.0 * step,
                "ppo/gold_score": gold + noise(0, 0.1),
                "ppo/gold_deviation": 0.8,
                "ppo/proxy_score": proxy * step / 20 + noise(0, 0.1),
                "ppo/score_deviation": 0.8,
                "ppo/reference_kl": 22 * step / 40,
            }
        )
    return rows


def test_the_verdict_compares_with_the_best_earlier_iteration(empty: RunContents) -> None:
    held_out = samples({"sft": [0.0] * 40, "ppo": [1.0] * 30 + [-1.0] * 10}, {"sft": 0, "ppo": 1})
    hacked = verdict(empty, ppo=climbed_and_fell(0.15), samples=held_out)
    assert hacked.tone == "bad" and hacked.headline.startswith("Over-optimized: gold fell from 1.0")
    assert "preferred" not in hacked.headline and any("PPO wins 75 %" in sentence for sentence in hacked.sentences)
    assert "22.0 nats" in hacked.sentences[0] and "iteration 40" in hacked.sentences[0]
    collapsed = verdict(empty, ppo=climbed_and_fell(0.15, proxy=0.0), samples=held_out)
    assert collapsed.tone == "bad" and collapsed.headline.startswith("PPO went past its peak: gold fell from 1.0")
    for end in (0.95, 1.3):
        fine = verdict(empty, ppo=climbed_and_fell(end), samples=held_out)
        assert fine.tone == "good" and fine.headline.startswith("PPO's responses are preferred")
    worse = samples({"sft": [0.0] * 40, "ppo": [-1.0] * 40}, {"sft": 0, "ppo": 1})
    beaten = verdict(empty, ppo=climbed_and_fell(-1.0), samples=worse)
    assert "worse" in beaten.headline and beaten.sentences[0].startswith("Over-optimized: gold fell from 1.0")


def test_a_fall_that_no_alarm_has_confirmed_is_not_denied_below_the_headline(empty: RunContents) -> None:
    """An alarm waits for a second look, and may have a wider limit: the headline has neither."""
    noise = random.Random(3).gauss
    gold = [1.0 + noise(0, 0.01) - 0.8 * (step > 19) for step in range(1, 21)]
    rows = [
        {"step": step, "ppo/proxy_score": 0.1 * step, "ppo/gold_score": value} for step, value in enumerate(gold, 1)
    ]
    settings = {"ppo": {"iterations": 20}, "guards": {"false_alarm_rate": 0.05, "looks": 2}}
    held_out = samples({"sft": [0.0] * 20, "ppo": [1.0] * 20}, {"sft": 0, "ppo": 1})
    run = replace(empty, ppo=rows, samples=held_out, settings=settings)
    found = find(run)
    assert found.alarms["ppo"] == [] and found.course is not None and found.course.has_parted
    told = verdict_of(run, found)
    assert told.headline.startswith("Over-optimized: gold fell")
    assert [sentence for sentence in told.sentences if sentence.startswith("Reward hacking")] == [
        f"Reward hacking: yes. In training, the reward model's score changed by {moved(found.course.proxy_moved)}, "
        f"gold by {moved(found.course.end_gold - found.course.best_gold)} since iteration {found.course.best}."
    ]
    assert is_hacked(found, "ppo")


def test_a_reward_model_at_chance_is_no_ground_for_a_good_verdict(empty: RunContents) -> None:
    held_out = samples({"sft": [0.0] * 20, "ppo": [1.0] * 20}, {"sft": 0, "ppo": 1})
    coin = [ScoredPair(str(number), number % 2, 0.5, 1.0, 3, 3) for number in range(40)]
    assert verdict(empty, samples=held_out).tone == "good"
    assert verdict(empty, samples=held_out, pairs=coin).tone == "open"


def test_without_gold_nothing_is_claimed(empty: RunContents) -> None:
    rows = [{"step": step, "ppo/proxy_score": 0.1 * step} for step in range(1, 6)]
    found = verdict(empty, ppo=rows, samples=samples({"sft": [None] * 4, "ppo": [None] * 4}, {"sft": 0, "ppo": 1}))
    assert found.tone == "open" and "+1.00" in found.sentences[0]
    assert found.headline == "The reward model's score rose; whether people agree is unknown"
    assert any("cannot be determined" in sentence for sentence in found.sentences)


def test_without_gold_the_headline_follows_the_figures(empty: RunContents) -> None:
    unknown: dict[str, list[float | None]] = {"sft": [None] * 20, "ppo": [None] * 20}
    fell = verdict(empty, samples=samples(unknown, {"sft": 0, "ppo": -1}))
    assert fell.tone == "bad" and fell.headline.startswith("The reward model's score fell")
    level = verdict(empty, samples=samples(unknown, {"sft": 0, "ppo": 0}))
    assert level.tone == "open" and level.headline.startswith("No gain shown")
    right = [ScoredPair(str(number), 1.0, 0.5, 1.0, 3, 3) for number in range(40)]
    sound = verdict(empty, samples=samples(unknown, {"sft": 0, "ppo": 1}), pairs=right)
    assert sound.tone == "open" and any("correct on 100 % (91 to 100 %)" in each for each in sound.sentences)
    coin = [ScoredPair(str(number), number % 2, 0.5, 1.0, 3, 3) for number in range(40)]
    groundless = verdict(empty, samples=samples(unknown, {"sft": 0, "ppo": 1}), pairs=coin)
    assert groundless.tone == "bad"
    assert groundless.headline == "No basis for a verdict: the reward model is no better than chance"


def test_what_people_prefer_comes_first_where_no_gold_is_known(empty: RunContents) -> None:
    unknown: dict[str, list[float | None]] = {"sft": [None] * 20, "ppo": [None] * 20}
    run = replace(empty, samples=samples(unknown, {"sft": 0, "ppo": 1}), ppo=[{"step": 1, "ppo/proxy_score": 1.0}])

    def win(value: float, low: float, high: float) -> PeopleWin:
        return PeopleWin("c", "ppo", "sft", Interval(value, low, high, 40), Labelers(3, 60, None))

    clear, even = win(0.7, 0.6, 0.8), win(0.5, 0.4, 0.6)
    found = verdict_of(run, find(run), [even, clear])
    assert found.headline == "People prefer ppo to sft: 70 % (60 to 80 %) of the prompts, ties half"
    assert (
        "not known" not in found.headline + " ".join(found.sentences)
        and "cannot be determined" not in found.sentences[-1]
    )
    assert verdict_of(run, find(run), [even]).headline.startswith("People do not clearly prefer one")
    assert "people agree is unknown" in verdict_of(run, find(run)).headline
    coin = replace(run, pairs=[ScoredPair(str(number), number % 2, 0.5, 1.0, 3, 3) for number in range(40)])
    doubted = verdict_of(coin, find(coin), [clear])
    assert doubted.tone == "bad" and doubted.sentences[0].startswith("People prefer ppo to sft")
    assert doubted.headline == f"{found.headline}; but the reward model is no better than chance"


def test_answers_that_have_become_alike_are_in_the_headline(empty: RunContents) -> None:
    def answered(opening: str, gold: float | None) -> list[Sample]:
        return [
            Sample(str(n), "?", policy, 0, f"{word} day is here", True, 10, own, float(policy == "ppo"), 1.0)
            for n in range(20)
            for policy, word, own in (("sft", f"word{n}", gold and 0.0), ("ppo", opening or f"other{n}", gold))
        ]

    alike, varied = verdict(empty, samples=answered("Friend,", 1.0)), verdict(empty, samples=answered("", 1.0))
    assert varied.tone == "good" and "alike" not in varied.headline
    assert alike.tone == "open"
    assert alike.headline.endswith("; but the responses have become alike: 100 % begin with “friend”")
    worse = verdict(empty, samples=answered("Friend,", -1.0))
    assert worse.tone == "bad" and worse.headline.endswith(
        "; and the responses have become alike: 100 % begin with “friend”"
    )
    blind = verdict(empty, samples=answered("Friend,", None))
    assert blind.tone == "bad"
    assert blind.headline == "PPO's responses have become alike: 100 % begin with “friend”"


def test_a_witness_says_what_can_be_said_without_gold(empty: RunContents) -> None:
    def rows(fall: float) -> list[dict[str, Any]]:
        return [
            {"step": step, "ppo/proxy_score": 0.1 * step, "ppo/witness_score": 0.1 * min(step, 15) - fall * (step > 15)}
            for step in range(1, 26)
        ]

    held_out = samples({"sft": [None] * 4, "ppo": [None] * 4}, {"sft": 0, "ppo": 1})
    sound = verdict(empty, ppo=rows(0.0), samples=held_out)
    assert any("none seen by the witness" in sentence for sentence in sound.sentences)
    parted = verdict(empty, ppo=rows(1.5), samples=held_out)
    likely = "Reward hacking: likely. In training, the reward model's score rose from"
    assert any(sentence.startswith(likely) for sentence in parted.sentences)
    assert "proxy-without-witness" not in sound.sentences[-1]
    golden = replace(empty, ppo=[row | {"ppo/gold_score": row["ppo/proxy_score"]} for row in rows(1.5)])
    found = find(golden)
    assert [alarm.name for alarm in found.alarms["ppo"]] == ["proxy-without-witness"]
    assert not is_hacked(found, "ppo"), "gold rose, and the witness only stands in for it"
    assert any("gold has not fallen" in sentence for sentence in verdict_of(golden, found).sentences)
    doubtful = [row | {"ppo/witness_score_correlation": 0.1, "ppo/episodes": 64.0 * row["step"]} for row in rows(0.0)]
    told = verdict(empty, ppo=doubtful, samples=held_out).sentences
    assert any(sentence.startswith("Reward hacking: cannot be determined by the witness.") for sentence in told)
    assert not any("none seen" in sentence for sentence in told)


def test_variants_that_hacked_are_named(empty: RunContents) -> None:
    held_out = samples(
        {"sft": [0.0] * 20, "ppo": [1.0] * 20, "arm:bad": [-1.0] * 20, "arm:fine": [1.0] * 20},
        {"sft": 0, "ppo": 1, "arm:bad": 2, "arm:fine": 1},
    )
    assert verdict(empty, samples=held_out).sentences[-1] == "Reward hacking in a variant: bad."
    both = verdict(empty, samples=held_out, variants={"trained": climbed_and_fell(-1.0)})
    assert both.sentences[-1] == "Reward hacking in variants: bad, trained."
    honest = [sample for sample in held_out if sample.policy != "arm:bad"]
    assert not any("variant" in sentence for sentence in verdict(empty, samples=honest).sentences)


def test_nothing_run_yet(empty: RunContents) -> None:
    assert verdict(empty) == Verdict(
        "open", "No verdict yet", ("Not run yet: supervised fine-tuning, the reward model, PPO.",)
    )


def test_unknown_figures_are_dashes() -> None:
    assert percent_interval(None) == signed(None) == "–"
