"""Each alarm speaks at its fault, with its numbers, and none speaks in a sound run."""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from triphase.monitoring.alarms import Alarm, Limits, find_alarms

Row = dict[str, Any]


def sound_run(iterations: int = 20, seed: int = 0) -> list[Row]:
    """A run like a good one on the embedded model: gold and proxy rise together, with the noise of 32 episodes."""
    noise = random.Random(seed).gauss
    rows = []
    for iteration in range(1, iterations + 1):
        part = (iteration - 1) / (iterations - 1)
        rows.append(
            {
                "step": iteration,
                "time": 1.0 + iteration,
                "ppo/proxy_score": 1.2 * part + noise(0, 0.15),
                "ppo/gold_score": 0.9 * part + noise(0, 0.15),
                "ppo/reference_kl": 5 * part + noise(0, 0.3),
                "ppo/entropy": 2.0 - 0.6 * part + noise(0, 0.1),
                "ppo/mean_length": 18 + 2 * part + noise(0, 1),
                "ppo/eos_rate": min(1, 0.85 + 0.1 * part + noise(0, 0.04)),
                "ppo/clip_fraction": 0.1 + noise(0, 0.02),
                "ppo/ratio_mean": 1 + noise(0, 0.01),
                "ppo/ratio_max": 2 + abs(noise(0, 0.5)),
                "ppo/explained_variance": 0.5 * part + noise(0, 0.1),
                "ppo/length_score_correlation": noise(0, 0.18),
                "ppo/distinct_2": 0.8 - 0.1 * part + noise(0, 0.03),
            }
        )
    return rows


def spoiled(metric: str, value: Callable[[int, float], float], since: int = 11, until: int = 99) -> list[Row]:
    rows = sound_run()
    for row in rows:
        if since <= row["step"] <= until:
            row[metric] = value(row["step"], row[metric])
    return rows


def the_alarm(rows: list[Row], limits: Limits | None = None) -> Alarm:
    (alarm,) = find_alarms(rows, limits)
    return alarm


@pytest.mark.parametrize("seed", range(40))
def test_a_sound_run_raises_nothing(seed: int) -> None:
    assert find_alarms(sound_run(seed=seed)) == []


@pytest.mark.parametrize(
    ("name", "metric", "value", "iteration"),
    [
        ("reference-kl", "ppo/reference_kl", lambda step, _: 4.0 * (step - 8), 12),
        ("ratio-explosion", "ppo/ratio_max", lambda _, __: 1e4, 11),
        ("ratio-bias", "ppo/ratio_mean", lambda _, __: 0.8, 12),
        ("entropy-collapse", "ppo/entropy", lambda _, __: 0.1, 13),
        ("eos-collapse", "ppo/eos_rate", lambda _, __: 0.05, 12),
        ("length-growth", "ppo/mean_length", lambda _, __: 32.0, 12),
        ("length-shrinkage", "ppo/mean_length", lambda _, __: 5.0, 12),
        ("length-score-correlation", "ppo/length_score_correlation", lambda _, __: -0.7, 12),
        ("clip-fraction", "ppo/clip_fraction", lambda _, __: 0.6, 12),
        ("repetition", "ppo/distinct_2", lambda _, __: 0.2, 12),
        ("critic-not-learning", "ppo/explained_variance", lambda _, __: -0.3, 11),
        ("proxy-without-gold", "ppo/gold_score", lambda step, _: 0.4 - 0.3 * (step - 10), 14),
    ],
)
def test_each_fault_raises_its_alarm_and_no_other(
    name: str, metric: str, value: Callable[[int, float], float], iteration: int
) -> None:
    alarm = the_alarm(spoiled(metric, value))
    assert alarm.name == name and alarm.lasting
    assert abs(alarm.iteration - iteration) <= 1, alarm.iteration
    assert {"value", "limit"} <= set(alarm.numbers)
    assert alarm.remedy.endswith(".") and alarm.line().startswith(f"alarm {name} at iteration {alarm.iteration}: ")


def test_numbers_are_those_that_triggered_it() -> None:
    rows = [{"step": step, "ppo/entropy": 3.0 if step <= 3 else 0.6} for step in range(1, 8)]
    alarm = the_alarm(rows)
    # start 3, limit 1; means of three: (3+3+.6)/3 = 2.2, (3+.6+.6)/3 = 1.4, .6
    assert (alarm.iteration, alarm.lasting) == (6, True)
    assert alarm.numbers == pytest.approx({"value": 0.6, "limit": 1.0, "start": 3.0})
    assert alarm.message == "entropy fell to 0.60 nats a token, from 3.00 at the start."


def test_one_odd_iteration_raises_no_smoothed_alarm() -> None:
    assert find_alarms(spoiled("ppo/eos_rate", lambda _, __: 0.0, since=11, until=11)) == []


def test_an_alarm_that_passed_is_not_lasting() -> None:
    assert not the_alarm(spoiled("ppo/clip_fraction", lambda _, __: 0.6, since=5, until=9)).lasting


def test_kl_budget_of_the_settings_is_the_limit() -> None:
    alarm = the_alarm(sound_run(), Limits(reference_kl=3.0))
    assert alarm.name == "reference-kl" and alarm.numbers["limit"] == 3.0


def test_gold_that_falls_with_the_proxy_is_no_hacking() -> None:
    rows = spoiled("ppo/gold_score", lambda step, _: 0.4 - 0.3 * (step - 10))
    for row in rows[10:]:
        row["ppo/proxy_score"] = -1.0
    assert find_alarms(rows) == []


def test_a_small_part_of_the_gain_that_is_lost_is_no_hacking() -> None:
    def rows(fall: float) -> list[Row]:
        gold = [0.1 * min(step, 10) - fall * (step > 15) for step in range(1, 26)]
        return [
            {"step": step, "ppo/gold_score": value, "ppo/proxy_score": 0.1 * step} for step, value in enumerate(gold, 1)
        ]

    # Smoothed, gold rises from 0.2 to 1.0: a fall must be over a quarter of 0.8.
    assert find_alarms(rows(0.19)) == []
    assert the_alarm(rows(0.6)).name == "proxy-without-gold"


def test_a_plateau_is_no_hacking_though_the_peak_of_many_iterations_lies_above_it() -> None:
    for seed in range(20):
        noise = random.Random(seed).gauss
        rows = [
            {
                "step": step,
                "ppo/proxy_score": 1.4 * min(1, step / 12) + 0.001 * step + noise(0, 0.07),
                "ppo/gold_score": 1.05 * min(1, step / 12) + 0.05 * math.sin(step / 6) + noise(0, 0.06),
            }
            for step in range(1, 61)
        ]
        assert find_alarms(rows) == []


def test_figures_that_are_not_finite_are_named() -> None:
    rows = sound_run()
    rows[4]["nonfinite"] = ["ppo/ratio_max"]
    alarm = the_alarm(rows)
    assert (alarm.name, alarm.iteration, alarm.lasting) == ("not-finite", 5, False)
    assert "ppo/ratio_max" in alarm.message


@pytest.mark.parametrize("count", range(4))
def test_few_rows_or_absent_figures_raise_nothing(count: int) -> None:
    assert find_alarms(sound_run()[:count]) == []
    assert find_alarms([{"step": step, "time": 0.0} for step in range(20)]) == []
