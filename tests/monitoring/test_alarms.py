"""Each alarm speaks at its fault, with its numbers, and none speaks in a sound run."""

import math
import random
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, get_args

import pytest

from triphase.monitoring.alarm_rules import RULES, certainty_for, limits_for
from triphase.monitoring.alarms import Alarm, Limits, find_alarms, shown_samples, with_samples
from triphase.monitoring.composite_rules import SIGNS
from triphase.settings.guards import AlarmName

Row = dict[str, Any]
# Metrics whose limits are so near that noise alone decides, with mean and deviation of an episode.
NULL = (("ppo/mean_length", 20.0, 60.0), ("ppo/entropy", 1.0, 4.0), ("ppo/repeated_2", 0.3, 1.0))
NOISE = {
    "ppo/mean_length": "ppo/length_deviation",
    "ppo/entropy": "ppo/entropy_deviation",
    "ppo/repeated_2": "ppo/repeated_2_deviation",
}
DEVIATIONS = {
    "ppo/score_deviation": 0.9,
    "ppo/gold_deviation": 0.9,
    "ppo/reference_kl_deviation": 2.0,
    "ppo/entropy_deviation": 0.5,
    "ppo/length_deviation": 6.0,
    "ppo/repeated_2_deviation": 0.08,
    "ppo/self_similarity_deviation": 0.25,
}


def sound_run(iterations: int = 20, seed: int = 0, batch: int = 32) -> list[Row]:
    """A run like a good one on the embedded model: gold and proxy rise together, with the noise of its episodes."""
    draw = random.Random(seed).gauss

    def noise(mean: float, of_32: float) -> float:
        return draw(mean, of_32 * math.sqrt(32 / batch))

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
                "ppo/witness_score_correlation": 0.8 - 0.1 * part + noise(0, 0.07),
                "ppo/distinct_2": 0.8 - 0.1 * part + noise(0, 0.03),
                "ppo/self_similarity": max(0.0, 0.2 + noise(0, 0.04)),
                "ppo/common_opening": min(1.0, max(0.0, 0.1 + noise(0, 0.05))),
                "ppo/repeated_2": max(0.0, 0.05 + noise(0, 0.015)),
                "ppo/episodes": float(batch * iteration),
                **{name: value * (1 + noise(0, 0.12)) for name, value in DEVIATIONS.items()},
            }
        )
    return rows


def spoiled(metric: str, value: Callable[[int, float], float], since: int = 11, until: int = 99) -> list[Row]:
    rows = sound_run()
    if metric in (
        "ppo/mean_length",
        "ppo/self_similarity",
        "ppo/common_opening",
    ):  # a judge who likes it would be a reason
        for row in rows:
            row["ppo/gold_score"] = 0.1
    for row in rows:
        if since <= row["step"] <= until:
            row[metric] = value(row["step"], row[metric])
    return rows


def the_alarm(rows: list[Row], limits: Limits | None = None) -> Alarm:
    (alarm,) = find_alarms(rows, limits)
    return alarm


@pytest.mark.parametrize("batch", [4, 8, 32, 256])
def test_a_sound_run_raises_nothing_at_any_batch_size(batch: int) -> None:
    for seed in range(40):
        rows = sound_run(30, seed=seed, batch=batch)
        for row in rows:  # what can be no share and no correlation
            row["ppo/eos_rate"] = min(1.0, max(0.0, row["ppo/eos_rate"]))
            for name in ("ppo/length_score_correlation", "ppo/witness_score_correlation"):
                row[name] = max(-0.99, min(0.99, row[name]))
            row["ppo/ratio_max"] = min(9.0, row["ppo/ratio_max"])
        assert [alarm.line() for alarm in find_alarms(rows, Limits(calibrated=True))] == []


def test_an_alarm_that_was_raised_in_a_run_stays_in_its_report() -> None:
    """Rules use only past rows: an alarm found in the first rows is found in all rows, at the same iteration."""
    for seed in range(6):
        rows = sound_run(40, seed=seed)
        noise = random.Random(seed).gauss
        for row in rows:
            step = row["step"]
            row["ppo/mean_length"] += 1.5 * max(0, step - 8) * (step < 25)
            row["ppo/explained_variance"] = -0.2 + noise(0, 0.05) if step < 28 else 0.5
            row["ppo/gold_score"] -= 0.15 * max(0, step - 15)
            row["ppo/entropy"] *= 0.2 if 10 < step < 16 else 1
        final = {(alarm.name, alarm.iteration, alarm.message) for alarm in find_alarms(rows)}
        for count in range(len(rows)):
            so_far = {(alarm.name, alarm.iteration, alarm.message) for alarm in find_alarms(rows[:count])}
            assert so_far <= final, count
        assert {"length-growth", "critic-not-learning", "entropy-collapse"} <= {name for name, _, _ in final}


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("batch", [32, 128])
def test_growth_of_the_length_is_told_from_the_start_on_and_early(batch: int, sign: float) -> None:
    """A length that grows by 6 % an iteration from the first one on, whether the score rises or is negated."""
    for seed in range(10):
        rows = sound_run(40, seed=seed, batch=batch)
        for row in rows:
            row["ppo/mean_length"] = min(60.0, row["ppo/mean_length"] * 1.06 ** (row["step"] - 1))
            row["ppo/proxy_score"] *= sign
        growth = next(alarm for alarm in find_alarms(rows) if alarm.name == "length-growth")
        assert growth.iteration <= 12 and growth.lasting
        assert growth.numbers["start"] == rows[0]["ppo/mean_length"]


def test_responses_may_shrink_while_the_judge_likes_it() -> None:
    rows = sound_run()
    for row in rows[5:]:
        row["ppo/mean_length"] = 9.0
    assert [alarm.name for alarm in find_alarms(rows[:14])] == ["length-shrinkage"]
    assert not any(alarm.lasting for alarm in find_alarms(rows))
    for row in rows:
        del row["ppo/gold_score"]
    assert the_alarm(rows).name == "length-shrinkage"
    for share, told in ((0.3, []), (0.9, ["length-shrinkage"])):  # nobody knows gold: does length explain the gain?
        explained = [row | {"ppo/length_share_of_gain": share} for row in rows]
        assert [alarm.name for alarm in find_alarms(explained)] == told
    for correlation, expected in ((0.8, set()), (0.2, {"length-shrinkage", "witness-disagreement"})):
        judged = [row | {"ppo/witness_score": 0.1 * row["step"], "ppo/witness_score_deviation": 0.9} for row in rows]
        judged = [row | {"ppo/witness_score_correlation": correlation} for row in judged]
        assert {alarm.name for alarm in find_alarms(judged) if alarm.lasting} == expected


def test_a_score_that_follows_length_is_told_where_the_judge_does_not() -> None:
    def rows(score: float, judge: float | None, growth: float = 1.0) -> list[Row]:
        found = spoiled("ppo/length_score_correlation", lambda _, __: score)
        for row in found:
            if judge is None:
                del row["ppo/gold_score"], row["ppo/gold_deviation"]
            else:
                row["ppo/length_gold_correlation"] = judge
            if row["step"] > 10:
                row["ppo/mean_length"] *= growth
        return found

    assert find_alarms(rows(-0.8, -0.78)) == [] and find_alarms(rows(0.75, 0.6)) == []
    for score, judge in ((0.8, 0.0), (-0.8, 0.1), (0.75, -0.5), (0.9, 0.05)):
        alarm = the_alarm(rows(score, judge))
        assert (alarm.name, alarm.numbers["judge"]) == ("length-score-correlation", pytest.approx(judge))
    # Nobody judges: the responses must have followed.
    for score, growth, followed in ((0.8, 1.0, False), (-0.8, 1.6, False), (0.8, 1.6, True), (-0.8, 0.4, True)):
        names = {alarm.name for alarm in find_alarms(rows(score, None, growth))}
        assert ("length-score-correlation" in names) == followed


@pytest.mark.parametrize(("score", "deviation"), [(0.0, 0.0), (0.5, 3e-8), (700.0, 3e-5)])
def test_a_constant_score_is_told_at_once(score: float, deviation: float) -> None:
    rows = sound_run()
    for row in rows:
        row |= {"ppo/proxy_score": score, "ppo/score_deviation": deviation}
        del row["ppo/length_score_correlation"]
    alarm = next(alarm for alarm in find_alarms(rows) if alarm.name == "score-without-spread")
    assert (alarm.iteration, alarm.lasting) == (3, True)


def test_a_rare_reward_is_not_a_constant_one() -> None:
    rows = sound_run()
    for row in rows:
        some = row["step"] % 3 == 0
        row |= {"ppo/proxy_score": 0.1 * some, "ppo/score_deviation": 0.3 * some}
    assert "score-without-spread" not in {alarm.name for alarm in find_alarms(rows)}


def test_scores_that_lose_their_spread_are_told() -> None:
    alarm = the_alarm(spoiled("ppo/score_deviation", lambda _, __: 0.004))
    assert (alarm.name, alarm.iteration) == ("score-without-spread", 13)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_score_far_outside_the_calibration_is_told(sign: int) -> None:
    def shifted(_: int, value: float) -> float:
        return value + 10.0 * sign

    far = next(alarm for alarm in find_alarms(spoiled("ppo/proxy_score", shifted)) if "range" in alarm.name)
    assert far.iteration in (12, 13, 14) and far.lasting  # in units of the first iteration's own deviation
    early = spoiled("ppo/proxy_score", shifted, since=1)
    assert "score-out-of-range" not in {alarm.name for alarm in find_alarms(early)}  # another scorer's own scale
    told = next(alarm for alarm in find_alarms(early, Limits(calibrated=True)) if "range" in alarm.name)
    assert told.iteration == 3 and told.numbers["distance"] == pytest.approx(10, abs=0.7)


def test_a_critic_is_not_judged_before_it_has_had_time() -> None:
    rows = spoiled("ppo/explained_variance", lambda _, __: -0.4, since=1, until=19)
    assert find_alarms(rows[:19]) == [] and find_alarms(rows) != []
    assert find_alarms(spoiled("ppo/explained_variance", lambda _, __: 0.0, since=1, until=9)) == []


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
        ("clip-fraction", "ppo/clip_fraction", lambda _, __: 0.6, 12),
        ("witness-disagreement", "ppo/witness_score_correlation", lambda _, __: 0.2, 13),
        ("repetition", "ppo/distinct_2", lambda _, __: 0.2, 12),
        ("self-similarity", "ppo/self_similarity", lambda _, __: 0.8, 12),
        ("self-similarity", "ppo/common_opening", lambda _, __: 0.9, 12),
        ("repetition", "ppo/repeated_2", lambda _, __: 0.5, 12),
        ("critic-not-learning", "ppo/explained_variance", lambda _, __: -0.3, 20),
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
    for row in rows:
        row |= {"ppo/episodes": 8.0 * row["step"], "ppo/entropy_deviation": 0.5}
    alarm = the_alarm(rows)
    # start 3, limit 1; means of three: (3+3+.6)/3 = 2.2, (3+.6+.6)/3 = 1.4, .6
    assert (alarm.iteration, alarm.lasting) == (6, True)
    assert alarm.numbers == pytest.approx({"value": 0.6, "limit": 1.0, "start": 3.0})
    assert alarm.message == "entropy fell to 0.60 nats per token, from 3.00 at the start."


def test_one_odd_iteration_raises_no_smoothed_alarm() -> None:
    assert find_alarms(spoiled("ppo/eos_rate", lambda _, __: 0.0, since=11, until=11)) == []


def test_an_alarm_that_passed_is_not_lasting() -> None:
    assert not the_alarm(spoiled("ppo/clip_fraction", lambda _, __: 0.6, since=5, until=9)).lasting


def test_kl_budget_of_the_settings_is_the_limit() -> None:
    alarm = the_alarm(sound_run(), Limits(reference_kl=3.0))
    assert alarm.name == "reference-kl" and alarm.numbers["limit"] == 3.0


def test_a_policy_that_stays_a_little_over_the_kl_budget_is_reported_at_once() -> None:
    """Each iteration alone is within its noise of 15; their mean is not."""
    noise = (0.6, -0.7, 0.8, -0.9)
    rows = spoiled("ppo/reference_kl", lambda step, _: 16.3 + noise[step % 4])
    for row in rows:
        row["ppo/reference_kl_deviation"] = 4.0
    alarm = the_alarm(rows)
    assert alarm.name == "reference-kl" and 13 <= alarm.iteration <= 16


def test_gold_that_falls_with_the_proxy_is_no_hacking() -> None:
    rows = spoiled("ppo/gold_score", lambda step, _: 0.4 - 0.3 * (step - 10))
    for row in rows[10:]:
        row["ppo/proxy_score"] = -1.0
    assert find_alarms(rows) == []


def test_a_proxy_that_rises_without_the_witness_is_told_where_nobody_knows_gold() -> None:
    rows = spoiled("ppo/gold_score", lambda step, _: 0.4 - 0.3 * (step - 10))
    for row in rows:
        row["ppo/witness_score"] = row.pop("ppo/gold_score")
        row["ppo/witness_score_deviation"] = row.pop("ppo/gold_deviation")
    alarm = the_alarm(rows)
    assert (alarm.name, alarm.lasting) == ("proxy-without-witness", True) and 13 <= alarm.iteration <= 15
    assert "ppo.kl_coefficient" in alarm.remedy and "--checkpoint" in alarm.remedy
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
    assert "ppo/ratio_max" in alarm.message and "lower the learning rate" in alarm.remedy
    rows[4]["nonfinite"] = ["ppo/proxy_score"]
    assert "find out why the scorer had no score" in the_alarm(rows).remedy  # a server returned null, for one


def test_a_rule_speaks_at_the_second_look_in_a_row() -> None:
    rows = spoiled("ppo/clip_fraction", lambda _, __: 0.6)
    first, second = the_alarm(rows), the_alarm(rows, Limits(looks=2))
    assert second.iteration == first.iteration + 1 and second.lasting and second.message
    once = spoiled("ppo/clip_fraction", lambda _, __: 0.98, since=11, until=11)
    assert find_alarms(once, Limits(looks=4)) == []  # it is in three means of three
    held = [row for row in rows if row["step"] != 13]  # rows that were left are no look
    assert the_alarm(held, Limits(looks=2)).iteration == 14


def test_what_has_no_noise_needs_no_second_look() -> None:
    rows = spoiled("ppo/clip_fraction", lambda _, value: value)
    rows[10]["nonfinite"] = ["ppo/value_loss"]
    alarm = the_alarm(rows, Limits(looks=5))
    assert (alarm.name, alarm.iteration) == ("not-finite", 11)


def test_one_ratio_of_a_sound_run_may_be_large_and_two_in_a_row_may_not() -> None:
    assert find_alarms(spoiled("ppo/ratio_max", lambda _, __: 1e4, until=11), Limits(looks=2)) == []
    alarm = the_alarm(spoiled("ppo/ratio_max", lambda _, __: 1e4, until=12), Limits(looks=2))
    assert (alarm.name, alarm.iteration) == ("ratio-explosion", 12)


# As a value head of sound runs of the tiny task showed it (seeds 0 and 11; their means come lowest of 20).
_SOUND = (
    "0 .02 .03 .06 .01 -.09 -.09 .02 -.05 -.03 .03 .01 -.09 .01 .02 0 .02 .04 .05 .01 .02 -.04 .02 0",
    "0 .01 .03 -.01 .03 .03 -.06 -.18 -.01 .02 0 -.03 -.02 .02 -.03 -.06 .03 .06 0 0 -.04 .02 .05 .09",
)


@pytest.mark.parametrize("shown", _SOUND)
def test_a_critic_that_explains_little_because_little_can_be_foreseen_is_sound(shown: str) -> None:
    values = [float(value) for value in shown.split()]
    rows = spoiled("ppo/explained_variance", lambda step, _: values[step % len(values)], since=1)
    assert find_alarms(rows, Limits(looks=2)) == []


@pytest.mark.parametrize(("value", "says"), [(0.0, "does not predict the returns"), (-0.4, "worse than no critic")])
def test_a_critic_that_does_not_move_and_one_that_does_harm_are_told_apart(value: float, says: str) -> None:
    rows = spoiled("ppo/explained_variance", lambda _, __: value, since=1)
    alarm = the_alarm(rows)
    assert (alarm.name, alarm.iteration) == ("critic-not-learning", 20) and says in alarm.message


def test_an_alarm_shows_the_best_the_middle_and_the_worst_response_of_its_iteration() -> None:
    alarms = find_alarms(spoiled("ppo/clip_fraction", lambda _, __: 0.6))
    lines = [
        {"iteration": iteration, "prompt": f"p{n}", "response": f"r{iteration}", "score": float(n * n % 7), "tokens": 3}
        for iteration in range(20)
        for n in range(5)
    ]
    (alarm,) = with_samples(alarms, lines)
    assert [(each["response"], each["score"]) for each in alarm.samples] == [
        (f"r{alarm.iteration - 1}", score) for score in (4.0, 2.0, 0.0)
    ]
    assert set(alarm.samples[0]) == {"prompt", "response", "score"}
    assert [len(shown_samples(lines[:count])) for count in range(4)] == [0, 1, 2, 3]
    assert with_samples(alarms, []) == alarms


def test_the_limit_follows_from_the_false_alarm_rate() -> None:
    """Two sides, the rules that compare, and 17 windows of three in 50 iterations."""
    compared = sum(rule.relative for rule in RULES) + 3
    assert certainty_for(0.05, 50) == pytest.approx(NormalDist().inv_cdf(1 - 0.05 / (2 * compared * 17)), abs=1e-12)
    assert certainty_for(0.05, 50) < certainty_for(0.01, 50) and certainty_for(0.05, 20) < certainty_for(0.05, 200)
    limits = limits_for(7.0, calibrated=True, false_alarms=(0.05, 50), looks=2)
    assert (limits.reference_kl, limits.calibrated, limits.looks) == (7.0, True, 2)
    assert limits.certainty == certainty_for(0.05, 50) > 3.5


@pytest.mark.parametrize("batch", [8, 32])
def test_runs_in_which_nothing_changes_keep_the_false_alarm_rate(batch: int) -> None:
    """Normal numbers around one mean with their stated errors: at most the stated share of runs raises an alarm."""
    limits = limits_for(None, calibrated=True, false_alarms=(0.2, 30), looks=1)
    told = 0
    for seed in range(100):
        draw = random.Random(seed).gauss
        rows = []
        for step in range(1, 31):
            row: Row = {"step": step, "ppo/episodes": float(batch * step)}
            for metric, mean, deviation in NULL:
                row |= {metric: draw(mean, deviation / math.sqrt(batch)), NOISE[metric]: deviation}
            rows.append(row)
        told += bool(find_alarms(rows, limits))
    assert told <= 0.2 * 100


@pytest.mark.parametrize("count", range(4))
def test_few_rows_or_absent_figures_raise_nothing(count: int) -> None:
    assert find_alarms(sound_run()[:count]) == []
    assert find_alarms([{"step": step, "time": 0.0} for step in range(20)]) == []


@pytest.mark.parametrize(("value", "told"), [(-0.0004, "explains 0.000 of"), (-0.4, "explains −0.40 of")])
def test_no_minus_stands_before_a_zero(value: float, told: str) -> None:
    assert told in the_alarm(spoiled("ppo/explained_variance", lambda _, __: value, since=1)).message


def test_every_rule_can_be_named_in_the_settings() -> None:
    names = {rule.name for rule in RULES} | set(SIGNS)
    assert names == set(get_args(AlarmName))


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("gone", [name for name in sorted(sound_run(2)[0]) if name.startswith("ppo/")])
def test_a_metric_that_a_damaged_file_has_lost_ends_no_report(gone: str, calibrated: bool) -> None:
    limits = Limits(calibrated=calibrated)
    for places in ([0], [7], [19], range(20)):
        rows = sound_run()
        for place in places:
            del rows[place][gone]
        assert all(alarm.name in get_args(AlarmName) for alarm in find_alarms(rows, limits))
