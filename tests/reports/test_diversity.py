"""How alike answers are: by hand, and against data that shows the contrary."""

import pytest

from triphase.reports.diversity import diversity_of, first_word
from triphase.reports.policy_comparison import Sample


def answers(policy: str, texts: list[str], each: int = 1) -> list[Sample]:
    """``each`` answers to every prompt."""
    return [
        Sample(str(place // each), "?", policy, place % each, text, True, len(text.split()), None, None, None)
        for place, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    ("text", "word"),
    [("“Friend, hello", "friend"), ("  \n", ""), ("... and so", "and"), ("It's", "it's"), ("STRASSE", "strasse")],
)
def test_the_first_word(text: str, word: str) -> None:
    assert first_word(text) == word


def test_shares_and_distinct_by_hand() -> None:
    samples = answers("sft", ["a b c", "b c d e", "c a"]) + answers("ppo", ["x y", "X y z", "c a x y"])
    found = diversity_of(samples, "ppo")
    assert found is not None
    assert (found.opening, found.share, found.share_before) == ("x", pytest.approx(2 / 3), pytest.approx(1 / 3))
    # Cut to one length: ppo "x y", "x y z", "c a"; sft "a b", "b c d", "c a": 4 sequences of each.
    assert (found.bigrams, found.distinct, found.distinct_before) == (4, 3 / 4, 1.0)
    assert (found.before, found.same_before) == (
        "a",
        0.0,
    ) and found.before_text() == "33 % begin with “a”, 0 % with “x”"
    assert found.same_rise is not None and found.same_rise.value == pytest.approx(2 / 3)
    assert found.rise is not None and found.rise.value == pytest.approx(1 / 3)  # prompts: 1 − 1, 1 − 0, 0 − 0


def test_what_the_task_makes_alike_is_no_collapse() -> None:
    both = [f"Dear customer number {n}, thank you" for n in range(30)]
    same = diversity_of(answers("sft", both) + answers("ppo", both), "ppo")
    assert same is not None and same.share == 1.0 and not same.is_collapsed
    varied = [f"word{n} customer number {n}, thank you" for n in range(30)]
    fallen = diversity_of(answers("sft", varied) + answers("ppo", both), "ppo")
    assert fallen is not None and fallen.has_one_opening and fallen.opening_text() == "100 % begin with “dear”"
    single = diversity_of(answers("sft", varied[:1]) + answers("ppo", both[:1]), "ppo")
    assert single is not None and not single.is_collapsed


def test_another_word_is_no_collapse_unless_more_answers_share_it() -> None:
    def found(before: int, after: int) -> bool:
        """Of 100 answers so many begin with one word, before with "the" and after with "your"."""
        old = [f"{'the' if n < before else f'w{n}'} day is here" for n in range(100)]
        new = [f"{'your' if n >= 100 - after else f'v{n}'} day is here" for n in range(100)]
        diversity = diversity_of(answers("sft", old) + answers("ppo", new), "ppo")
        assert diversity is not None
        return diversity.has_one_opening

    assert found(44, 67)  # two thirds begin with a word that none began with
    assert not found(90, 90)  # as many as before, with another word
    assert not found(20, 45)  # under a half


def test_longer_answers_are_not_less_distinct_for_their_length() -> None:
    short = [f"w{n} a{n}" for n in range(60)]
    long = [f"w{n} a{n} " + "and so on " * 30 for n in range(60)]
    found = diversity_of(answers("sft", short) + answers("ppo", long), "ppo")
    assert found is not None and found.distinct == 1.0 and not found.repeats_itself
    again = diversity_of(answers("sft", short) + answers("ppo", ["the same"] * 60), "ppo")
    assert again is not None and again.repeats_itself


def test_empty_answers_are_said_to_be_empty() -> None:
    found = diversity_of(answers("sft", [f"w{n}" for n in range(20)]) + answers("ppo", [""] * 20), "ppo")
    assert found is not None and found.is_collapsed and found.opening_text() == "100 % are empty"
    assert diversity_of([], "ppo") is None
