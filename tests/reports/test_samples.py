"""The choice of samples looks at nothing but the ids of the prompts."""

import json
import random
from dataclasses import replace

from triphase.reports.policy_comparison import Sample
from triphase.reports.samples import side_by_side

SAMPLES = [
    Sample(f"p{prompt}", f"Question {prompt}", policy, number, f"{policy} {prompt} {number}", True, 5, 0.0, 0.0, 0.0)
    for prompt in range(40)
    for policy in ("sft", "ppo")
    for number in range(3)
]


def test_the_order_is_fixed_whatever_was_answered_and_in_whatever_order() -> None:
    chosen = [each.prompt for each in side_by_side(SAMPLES, ("sft", "ppo"))]
    assert len(chosen) == 40 == len(set(chosen))
    rng = random.Random(0)
    other = [replace(sample, gold=rng.random(), score=rng.random(), response="other") for sample in SAMPLES]
    rng.shuffle(other)
    assert [each.prompt for each in side_by_side(other, ("sft", "ppo"))] == chosen
    assert chosen[:3] == ["Question 7", "Question 37", "Question 17"]  # by sha256sum


def test_each_policy_shows_its_first_sample_and_has_the_others() -> None:
    for each in side_by_side(list(reversed(SAMPLES)), ("sft", "ppo")):
        assert [(answer.policy, answer.sample) for answer in each.answers] == [("sft", 0), ("ppo", 0)]
        assert [[sample.sample for sample in group] for group in each.samples] == [[0, 1, 2]] * 2 and each.further == 4


def test_a_policy_without_an_answer_is_left_out() -> None:
    (one,) = side_by_side([SAMPLES[0]], ("sft", "ppo"))
    assert [answer.policy for answer in one.answers] == ["sft"]
    assert side_by_side([], ("sft",)) == []


def test_a_page_holds_as_many_prompts_as_it_has_room_for_and_one_at_least() -> None:
    each = sum(len(sample.prompt if sample.policy + str(sample.sample) == "sft0" else "") + len(sample.response)
               for sample in SAMPLES if sample.prompt_id == "p7")  # fmt: skip
    assert len(side_by_side(SAMPLES, ("sft", "ppo"), most_characters=each)) == 1
    assert len(side_by_side(SAMPLES, ("sft", "ppo"), most_characters=1)) == 1
    assert 1 < len(side_by_side(SAMPLES, ("sft", "ppo"), most_characters=5 * each)) < 7


def test_what_prompts_sort_by_is_each_policys_mean() -> None:
    def sample(policy: str, number: int, score: float | None, tokens: int, divergence: float | None) -> Sample:
        return Sample("p", "?", policy, number, "!", True, tokens, None, score, divergence)

    rows = [
        sample("sft", 0, 1.0, 4, 0.0),
        sample("sft", 1, 2.0, 6, 0.0),
        sample("ppo", 0, 3.0, 10, 4.0),
        sample("ppo", 1, 5.0, 20, None),
        sample("arm:x", 0, 7.0, 1, None),
        sample("arm:y", 0, None, 1, None),
    ]
    (one,) = side_by_side(rows, ("sft", "ppo", "arm:x", "arm:y"), {"arm:x": {"p": [6.0]}})
    assert json.loads(one.keys) == {
        "sft": [1.5, 0.0, 5.0, 0.0],
        "ppo": [4.0, 2.5, 15.0, 4.0],
        "arm:x": [7.0, 1.0, 1.0, None],  # against what its own scorer says of the reference
        "arm:y": [None, None, 1.0, None],
    }
    (other,) = side_by_side(rows, ("sft", "arm:x"), {"arm:x": {}})
    assert json.loads(other.keys)["arm:x"] == [7.0, None, 1.0, None]
