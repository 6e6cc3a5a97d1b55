"""The choice of samples looks at nothing but the ids of the prompts."""

import random
from dataclasses import replace

from triphase.reports.evaluation import Sample
from triphase.reports.samples import side_by_side

SAMPLES = [
    Sample(f"p{prompt}", f"Question {prompt}", policy, number, f"{policy} {prompt} {number}", True, 5, 0.0, 0.0, 0.0)
    for prompt in range(40)
    for policy in ("sft", "ppo")
    for number in range(3)
]


def test_choice_is_fixed_whatever_was_answered_and_in_whatever_order() -> None:
    chosen = [each.prompt for each in side_by_side(SAMPLES, ("sft", "ppo"), 12)]
    assert len(chosen) == 12 == len(set(chosen))
    rng = random.Random(0)
    other = [replace(sample, gold=rng.random(), score=rng.random(), response="other") for sample in SAMPLES]
    rng.shuffle(other)
    assert [each.prompt for each in side_by_side(other, ("sft", "ppo"), 12)] == chosen
    assert chosen[:3] == ["Question 7", "Question 37", "Question 17"]  # by sha256sum


def test_each_policy_shows_its_first_sample() -> None:
    for each in side_by_side(list(reversed(SAMPLES)), ("sft", "ppo"), 5):
        assert [(answer.policy, answer.sample) for answer in each.answers] == [("sft", 0), ("ppo", 0)]


def test_a_policy_without_an_answer_is_left_out() -> None:
    (one,) = side_by_side([SAMPLES[0]], ("sft", "ppo"), 12)
    assert [answer.policy for answer in one.answers] == ["sft"]
    assert side_by_side([], ("sft",), 12) == []
