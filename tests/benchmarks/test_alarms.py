"""What `benchmarks.alarms` prints of metrics, and that it keeps them."""

from pathlib import Path

from benchmarks.alarms import Kept, alarms_of, told
from benchmarks.planted_flaws import SMOLLM2, TINY, Flaw, Planted

from triphase.records.types import Message, Prompt
from triphase.rewards.types import Answer


def test_a_line_counts_the_right_alarms_and_names_the_others() -> None:
    flaw = Flaw(lambda p, w, f: 0.0, ("repetition", "eos-collapse"))
    found = [{"repetition": 7, "eos-collapse": 5}, {"repetition": 9, "length-growth": 4}, {"length-growth": 3}]
    assert told(flaw, found) == "right in 2 of 3, at iterations 5 to 9 (median 7); others: length-growth 2"
    assert told(Flaw(flaw.score), [{}, {"repetition": 3}]) == "silent in 1 of 2; others: repetition 1"


def test_without_gold_no_alarm_knows_it() -> None:
    gold = [1.0] * 6 + [-3.0] * 8
    rows = [
        {"step": step, "ppo/proxy_score": 0.3 * step, "ppo/gold_score": value, "ppo/episodes": 64.0 * step,
         "ppo/score_deviation": 0.5, "ppo/gold_deviation": 0.5}
        for step, value in enumerate(gold, start=1)
    ]  # fmt: skip
    flaw = TINY["keyword bonus"]
    assert "proxy-without-gold" in alarms_of(rows, flaw, judged=True)
    assert alarms_of(rows, flaw, judged=False) == {"score-out-of-range": 14}


def test_kept_metrics_are_found_by_their_run(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    assert Kept(file).rows == {} and Kept(None).add("a", []) == []
    Kept(file).add("a, seed 1", [{"step": 1}])
    Kept(file).add("a, seed 2", [{"step": 2}])
    assert Kept(file).rows == {"a, seed 1": [{"step": 1}], "a, seed 2": [{"step": 2}]}


def test_each_flaw_scores_what_it_says() -> None:
    def score(flaw: Flaw, response: str) -> float:
        assert flaw.score is not None
        answer = Answer(Prompt("p", (Message("user", "sun sun sun"),)), response, True)
        return Planted(flaw.score).score([answer]).total[0]

    assert score(TINY["repetition bonus"], "sun sun sun road") == 2.0
    assert score(TINY["keyword bonus"], "mud sun mud") == 2.0
    assert score(TINY["flattery opener"], "rust mud rust sun") == 2.5
    assert score(TINY["sign error"], "sun") == -score(TINY["none (gold, with KL penalty)"], "sun") < 0
    assert score(TINY["a scorer that ignores the prompt"], "stone road sun") == 2.0
    assert score(SMOLLM2["repetition bonus"], "a a a b") == 2.0
    names = {"length bias", "keyword bonus", "repetition bonus", "flattery opener", "sign error"}
    assert names | {"40 % flipped labels", "a scorer that saturates", "a scorer that ignores the prompt"} < set(TINY)
