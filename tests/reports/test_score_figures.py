"""Histograms, the way of score and length, an ensemble's band: what they draw, and when there is nothing to draw."""

import re

import pytest

from triphase.reports.score_figures import ensemble_band, histogram, score_and_length


def test_shares_of_a_histogram_by_hand() -> None:
    svg = histogram("h", "Score", {"SFT": [0.0, 0.0, 0.0, 24.0], "PPO": [12.5, 24.0]})
    assert svg is not None
    said = re.findall(r'class="title">([^<]*)</text>.*?>(SFT [^<]*)</text>.*?>(PPO [^<]*)</text>', svg)
    assert len(said) == 24 and said[0] == ("0 to 1.00", "SFT 75.0 %", "PPO 0.0 %")
    assert said[12] == ("12.0 to 13.0", "SFT 0.0 %", "PPO 50.0 %") and said[-1][1:] == ("SFT 25.0 %", "PPO 50.0 %")


def test_nothing_is_drawn_of_nothing_and_of_one_value() -> None:
    assert histogram("h", "Score", {}) is None and histogram("h", "Score", {"SFT": [1.0, 1.0], "PPO": [1.0]}) is None
    row = {"step": 1, "ppo/mean_length": 5.0, "ppo/proxy_score": 1.0, "ppo/reward_disagreement": 1.0}
    assert score_and_length({"PPO": [row]}) is None and ensemble_band([row]) is None
    assert score_and_length({"PPO": [{"step": 1}, {"step": 2}]}) is None and ensemble_band([{"step": 1}]) is None


def test_every_iteration_has_its_values() -> None:
    rows = [
        {
            "step": step, "ppo/mean_length": 5.0 + step, "ppo/proxy_score": step / 10,
            "ppo/reward_disagreement": 1 + step / 10, "ppo/reward_disagreement_deviation": 0.25,
        }
        for step in range(1, 8)
    ]  # fmt: skip
    svg = score_and_length({"PPO": rows, "alone": rows[:1]})
    assert svg is not None and ">12.0 tokens, score 0.700</text>" in svg and "alone" not in svg
    band = ensemble_band(rows)
    assert band is not None and ">1.70</text>" in band and band.count(">± 0.250</text>") == 7


def test_names_of_strangers_are_inert() -> None:
    rows = [{"step": step, "ppo/mean_length": 5.0 + step, "ppo/proxy_score": 1.0 * step} for step in (1, 2)]
    for svg in (score_and_length({"<b>": rows}), histogram("h", "Score", {"<b>": [1.0, 2.0]})):
        assert svg is not None and "<b>" not in svg and "&lt;b&gt;" in svg


@pytest.mark.parametrize("values", [[-1e-9, 1e-9], [1e6, 2e6]])
def test_any_scale(values: list[float]) -> None:
    assert histogram("h", "Score", {"SFT": values}) is not None
