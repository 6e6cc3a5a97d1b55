"""A caption states what its figure shows: each is tested with figures that show one thing and the opposite."""

from triphase.reports.captions import (
    accuracy_caption,
    course_sentences,
    ensemble_caption,
    histogram_caption,
    length_caption,
    overoptimization_caption,
    reliability_caption,
    score_and_length_caption,
    watched,
    win_rate_caption,
)
from triphase.reports.chance_check import chance_verdict
from triphase.reports.findings import RewardFindings
from triphase.reports.gold_course import Course
from triphase.reports.intervals import Interval
from triphase.reports.policy_comparison import best_of_n, length_stratified
from triphase.reports.reward_quality import ScoredPair, accuracy, longer_wins, reliability


def findings(right: int, longer: int, *, ceiling: float | None = 0.8) -> RewardFindings:
    """Of 200 comparisons so many are right, and in so many the longer response is preferred."""
    pairs = [
        ScoredPair(str(number), float(number < right), 0.5, 1.0, 9 if number % 200 < longer else 3, 6)
        for number in range(200)
    ]
    return RewardFindings(
        200, accuracy(pairs), longer_wins(pairs), ceiling, chance_verdict(pairs), reliability(pairs), None
    )


def test_accuracy_above_and_below_its_neighbors() -> None:
    above = accuracy_caption(findings(150, 100))
    assert (
        "correct on 75 %" in above
        and "It is better than preferring the longer" in above
        and "is under the 80 %" in above
    )
    below = accuracy_caption(findings(100, 150))
    assert "It is worse than preferring the longer" in below
    level = accuracy_caption(findings(170, 168))
    assert "is not shown" in level and "is not under the 80 %" in level
    assert "noise allows" not in accuracy_caption(findings(150, 100, ceiling=None))


def test_too_sure_and_not_sure_enough() -> None:
    def caption(margin: float, right: int) -> str:
        return reliability_caption(
            reliability([ScoredPair(str(n), margin, 0.0, float(n < right), 3, 3) for n in range(100)])
        )

    assert "more confident than it is accurate" in caption(3.0, 70)
    assert "less confident than it is accurate" in caption(0.2, 90)
    assert "about as confident as it is accurate" in caption(1.0986, 75)
    assert reliability_caption(None) == ""


def test_win_rates_on_either_side_of_the_line() -> None:
    told = win_rate_caption(
        {
            "PPO": Interval(0.7, 0.6, 0.8, 40),
            "no-kl": Interval(0.2, 0.1, 0.3, 40),
            "other": Interval(0.5, 0.4, 0.6, 40),
            "one": Interval(0.9, None, None, 1),
        }
    )
    assert "Better than SFT: PPO; worse than SFT: no-kl; not shown to differ from SFT: other, one." in told
    assert win_rate_caption({}) == ""


def test_gain_by_length_up_down_and_incomparable() -> None:
    low, high = [(10, 0.0), (20, 0.0), (11, 0.0), (21, 0.0)], [(10, 1.0), (20, 1.0), (11, 1.0), (21, 1.0)]
    assert "higher in 2 of the 2 bins" in length_caption(length_stratified(high, low, bins=2))
    assert "higher in 0 of the 2 bins" in length_caption(length_stratified(low, high, bins=2))
    assert "nothing is compared" in length_caption(length_stratified([(30, 1.0)] * 4, [(5, 0.0)] * 4, bins=2))


def test_course_best_at_the_end_earlier_and_fallen() -> None:
    told = course_sentences({"PPO": Course(40, 1.0, 40, 1.0, 5.0, 0.0, False, False)})
    assert told == "PPO: gold is highest at the end, iteration 40 (1.00). Means of 3 iterations."
    slight = course_sentences({"a": Course(20, 1.0, 40, 0.9, 5.0, 0.4, False, True)})
    assert "at iteration 20 (1.00); at the end, iteration 40, it is 0.90: not clearly lower" in slight
    assert "lower; the proxy rose by 0.40 meanwhile" in slight
    both = course_sentences(
        {"a": Course(20, 1.0, 40, -0.1, 5.0, 0.0, True, False), "b": Course(9, 1.0, 9, 1.0, 5.0, 0.0, False, False)}
    )
    assert "a: gold was highest" in both and "it is −0.10: clearly lower." in both and "b: gold is highest" in both
    assert course_sentences({}) == ""


def test_what_is_not_drawn_is_not_spoken_of() -> None:
    curve = best_of_n({"a": [(3.0, 5.0), (1.0, 10.0), (4.0, 1.0), (2.0, 0.0)]})
    both = overoptimization_caption(gold=True, best=curve, score="the reward model's score")
    assert "gold" in both and "Best-of-n" in both
    neither = overoptimization_caption(gold=False, best=[], score="the score of the function a:b")
    assert "gold" not in neither and "Best-of-n" not in neither


def test_only_what_was_measured_was_looked_at() -> None:
    row = {"step": 1, "ppo/entropy": 1.0, "ppo/gold_score": 1.0}
    assert watched([row] * 4) == "None. Checked: entropy and gold against proxy."
    assert watched([row] * 3) == "None. Too few iterations for: entropy and gold against proxy."
    assert watched([{"step": 1, "ppo/ratio_max": 1.0}]) == "None. Checked: ratios."
    assert watched([{"step": 1, "ppo/reference_kl": 1.0}] * 2) == "None. Too few iterations for: reference KL."
    assert watched([{"step": 1, "ppo/reference_kl": 1.0}] * 3) == "None. Checked: reference KL."
    # A critic is not judged before it has had time: nothing was checked that could have been found.
    judged = [row | {"ppo/explained_variance": 0.0}] * 19
    assert watched(judged).endswith("gold against proxy. Too few iterations for: the critic.")
    assert watched([*judged, judged[0]]) == "None. Checked: entropy, the critic and gold against proxy."
    assert watched([{"step": 1}]) == "None; there was nothing to check."


def test_scores_before_and_after_by_hand() -> None:
    # Pairs: 2 over 1, 2 under 3; 3 over 1, 3 even with 3: 1 + 0 + 1 + ½ of 4.
    told = histogram_caption({"SFT": [1.0, 3.0], "PPO": [2.0, 3.0], "low": [0.0]}, "SFT")
    assert "PPO's responses score higher than SFT's in 62 %" in told and "low's responses score higher" in told
    assert "low's responses score higher than SFT's in 0 % of all pairs" in told
    assert histogram_caption({"PPO": [2.0]}, "SFT") == "Of held-out prompts."


def test_score_and_length_say_what_each_did() -> None:
    told = score_and_length_caption(
        {"a": (10, 0.0, 20, 1.0), "b": (10, 1.0, 5, 0.0), "c": (10, 0.0, 10.5, 1.0), "d": (10, 1.0, 20, 1.0)}
    )
    a, b, c, d = told.split("; ")
    assert "the score rose from 0.00 to 1.00 while the responses became longer (10.0 to 20.0 tokens)" in a
    assert "fell" in b and "shorter" in b and "rose" in c and "stayed within a tenth" in c and "stayed from" in d
    assert score_and_length_caption({}) == ""


def test_an_ensemble_that_judges_the_unseen() -> None:
    def told(value: float) -> str:
        return ensemble_caption(
            [{"step": step, "ppo/reward_disagreement": each} for step, each in enumerate((1.0, value))]
        )

    assert "2.00 times as much" in told(2.0) and "their training data" in told(2.0)
    assert "0.90 times as much" in told(0.9) and "their training data" not in told(0.9)
    assert ensemble_caption([{"step": 1}]) == ""
