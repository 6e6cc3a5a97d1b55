"""The verdict says what the numbers say, and no more."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from triphase.reports.contents import RunContents, read_run
from triphase.reports.evaluation import Sample
from triphase.reports.findings import find
from triphase.reports.verdict import Verdict, percent_interval, signed, verdict_of


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
        "Reward hacking: yes. On held-out prompts the reward model's score moved by +1.00 (+1.00 to +1.00), "
        "gold by −1.00 (−1.00 to −1.00)."
    )


def test_worse_with_a_lower_proxy_is_not(empty: RunContents) -> None:
    found = verdict(empty, samples=samples({"sft": [0.0] * 20, "ppo": [-1.0] * 20}, {"sft": 0, "ppo": -1}))
    assert found.tone == "bad" and any("none seen" in sentence for sentence in found.sentences)


def test_an_interval_across_a_half_shows_nothing(empty: RunContents) -> None:
    found = verdict(empty, samples=samples({"sft": [0.0] * 20, "ppo": [1.0, -1.0] * 10}, {"sft": 0, "ppo": 1}))
    assert found.tone == "open" and found.headline == "No difference shown between PPO and the SFT policy"


def test_one_prompt_is_too_few(empty: RunContents) -> None:
    assert "too few" in verdict(empty, samples=samples({"sft": [0.0], "ppo": [1.0]}, {"sft": 0, "ppo": 1})).headline


def test_a_good_end_with_hacking_on_the_way_is_open(empty: RunContents) -> None:
    rows = [
        {"step": step, "ppo/proxy_score": 0.1 * step, "ppo/gold_score": 1.0 if step < 8 else 1.5 - 0.1 * step}
        for step in range(1, 16)
    ]
    held_out = samples({"sft": [0.0] * 20, "ppo": [1.0] * 20}, {"sft": 0, "ppo": 1})
    found = verdict(empty, ppo=rows, samples=held_out)
    assert found.tone == "open" and any("Reward hacking: yes. In training" in sentence for sentence in found.sentences)


def test_without_gold_nothing_is_claimed(empty: RunContents) -> None:
    rows = [{"step": step, "ppo/proxy_score": 0.1 * step} for step in range(1, 6)]
    found = verdict(empty, ppo=rows, samples=samples({"sft": [None] * 4, "ppo": [None] * 4}, {"sft": 0, "ppo": 1}))
    assert found.tone == "open" and "+1.00" in found.sentences[0]
    assert "cannot be told" in found.sentences[1]


def test_nothing_run_yet(empty: RunContents) -> None:
    assert verdict(empty) == Verdict(
        "open", "No verdict yet", ("Not run yet: supervised fine-tuning, the reward model, PPO.",)
    )


def test_unknown_figures_are_dashes() -> None:
    assert percent_interval(None) == signed(None) == "–"
