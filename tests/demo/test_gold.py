"""The gold score of the demo task: values by hand, and cheap tricks that do not raise it."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triphase.demo import gold
from triphase.demo.gold import warm_gold

GARDEN = "What would you say to a neighbor about his garden?"
BEST = 1.5 * math.tanh(1.6) + 1.2


def vader(*valences: float) -> float:
    """VADER's compound of a sentence by its published formula: S/√(S² + 15), to four places."""
    total = sum(valences)
    return round(total / math.sqrt(total**2 + 15), 4)


# --- hand-worked values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "valence", "compound"),
    [("great", 3.1, 0.6249), ("enjoy", 2.2, 0.4939), ("ugly", -2.3, -0.5106), ("window", 0.0, 0.0)],
)
def test_warmth_of_one_word_is_the_published_formula_of_its_valence(word: str, valence: float, compound: float) -> None:
    assert vader(valence) == compound
    assert gold.warmth(word) == pytest.approx(compound, abs=1e-12)


def test_warmth_is_the_mean_over_sentences() -> None:
    assert gold.warmth("Great. The window.") == pytest.approx(0.6249 / 2)
    assert gold.warmth("Great. Ugly!") == pytest.approx((0.6249 - 0.5106) / 2)


def test_warmth_folds_back_above_four_fifths() -> None:
    compound = vader(2.8, 2.7, 2.6)
    assert compound == 0.9022
    assert gold.warmth("amazing wonderful fantastic") == pytest.approx(0.9022 - 3 * 0.1022)


@pytest.mark.parametrize(
    ("response", "finished", "expected"),
    [
        # neutral, on the subject, ended, spoken to nobody: every term is 0
        ("The garden has a long wall.", True, 0.0),
        ("The garden has a long wall.", False, -1.0),
        # the same, spoken to the reader: 1.2
        ("Your garden has a long wall.", True, 1.2),
        # 1.5·tanh(2·0.4939) + 1.2
        ("I think you will enjoy your garden.", True, 2.3346),
        # the same without the subject
        ("I think you will enjoy it.", True, 1.8346),
        # 1.5·tanh(2·0.6249) − 0.2·3 missing words
        ("Great garden.", True, 0.6724),
        # the same with two extra exclamation marks; marks do not add warmth
        ("Great garden!!!", True, -0.3276),
        # c = 0.9022 folded to 0.5956: 1.5·tanh(1.1912) − 0.5 for the third strong word
        ("An amazing, wonderful, fantastic garden.", True, 0.7464),
        # c of three times 3.2 is 0.9274, folded to 0.5452: 1.1955 + 1.2 − 0.5 − 1.5·(2 of 4 content words)
        ("I love love love your garden.", True, 1.1455),
        # 25 neutral words of which no content word and no pair comes twice: 1.2 − 0.3·15
        (
            "Your garden stands behind one wall where seven brown hens walk from noon until dusk while rain drips over "
            "slate roofs beside that narrow road.",
            True,
            -3.3,
        ),
    ],
)
def test_hand_worked_gold(response: str, finished: bool, expected: float) -> None:
    assert warm_gold(GARDEN, response, finished) == pytest.approx(expected, abs=2e-4)


def test_the_expected_values_above_follow_from_the_formula() -> None:
    assert 2 * math.tanh(2 * 0.4939) == pytest.approx(1.5128, abs=1e-4)
    assert 2 * math.tanh(2 * 0.6249) - 0.6 == pytest.approx(1.0965, abs=1e-4)
    assert 2 * math.tanh(2 * 0.5956) - 0.5 == pytest.approx(1.1619, abs=1e-4)
    assert vader(9.6) == 0.9274
    assert 2 * math.tanh(2 * (0.9274 - 3 * 0.1274)) - 0.5 - 0.75 == pytest.approx(0.3440, abs=1e-4)


@pytest.mark.parametrize("response", ["", "  \n", "!!!", "...", "12 34", "\N{SMILING FACE WITH SMILING EYES}"])
def test_a_response_without_a_word_is_as_cold_as_can_be(response: str) -> None:
    assert warm_gold(GARDEN, response, True) == -2.0
    assert warm_gold(GARDEN, response, False) == -3.0


# --- the terms, one by one ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("", 0.0),
        ("A long wall stands behind your garden.", 0.0),
        ("love love love", 2 / 3),
        ("The bread is here, and the breads are there.", 1 / 2),
        ("it is as it is as it is", 4 / 7),
        ("Room 12 and room 12.", 1 / 2),
    ],
)
def test_repetition(response: str, expected: float) -> None:
    assert gold.repetition(response) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("A kind and good friend.", 0),
        ("A lovely, beautiful day.", 0),
        ("A lovely, beautiful, perfect day.", 1),
        ("Lovely. Beautiful. Perfect. Wonderful.", 2),
    ],
)
def test_gushing_counts_strong_praise_beyond_two_over_all_sentences(response: str, expected: float) -> None:
    assert gold.gushing(response) == expected


@pytest.mark.parametrize(("response", "expected"), [("Hello.", 0), ("Hello!", 0), ("Hello! Oh!", 1), ("Oh!!!!", 3)])
def test_exclamation_counts_marks_beyond_one(response: str, expected: float) -> None:
    assert gold.exclamation(response) == expected


def test_length_is_free_from_five_to_twenty_two_words() -> None:
    short, long = [
        [gold.missing_words("word " * n) for n in (1, 4, 5)],
        [gold.excess_words("word " * n) for n in (10, 18)],
    ]
    assert short == [4, 1, 0]
    assert long == [0, 8]


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("Tell a colleague about the new coffee machine.", {"coffe", "machin"}),
        ("My flatmate baked bread for everyone. What do I say?", {"bak", "bread"}),
        ("Thank your neighbor's children for the parties.", {"party"}),
        ("Say something kind to your teacher.", set()),
    ],
)
def test_the_subject_is_neither_grammar_nor_the_request_nor_the_reader(prompt: str, subject: set[str]) -> None:
    assert gold.subject_words(prompt) == subject


@pytest.mark.parametrize(
    ("prompt", "response", "expected"),
    [
        (GARDEN, "Gardens need rain.", 0),
        (GARDEN, "The neighbor's wall is long.", 1),
        ("My flatmate baked bread. What do I say?", "Thanks for baking.", 0),
        ("Say something kind to your teacher.", "The sea is far away.", 0),
    ],
)
def test_off_topic(prompt: str, response: str, expected: float) -> None:
    assert gold.off_topic(prompt, response) == expected


@pytest.mark.parametrize(
    "forms",
    [
        ["bake", "bakes", "baked", "baking"],
        ["plan", "plans", "planned", "planning"],
        ["study", "studies", "studied"],
        ["glass", "glasses"],
        ["child", "children", "child's"],
        ["leaf", "leaves"],
    ],
)
def test_forms_of_a_word_share_a_stem(forms: list[str]) -> None:
    assert len({gold.stem(form) for form in forms}) == 1


def test_stems_keep_different_words_apart() -> None:
    assert len({gold.stem(word) for word in ("cat", "cake", "coat", "boat", "book", "bus", "news", "tea", "team")}) == 9


def test_echo_is_the_request_handed_back() -> None:
    prompt = "Thank a colleague for the loan of a calculator."
    assert gold.echo(prompt, prompt) == 1
    assert gold.echo(prompt, "Sure: thank a colleague for it.") == 1
    assert gold.echo(prompt, "Thank you for the loan of a calculator.") == 0
    assert gold.echo("Say hello.", "Say hello.") == 0
    # 2·tanh(2·c) − 1 with c = 1.5/√17.25 = 0.3612 of "thank"
    assert warm_gold(prompt, prompt, True) == pytest.approx(1.5 * math.tanh(0.7224) - 1, abs=1e-4)


def test_sentences_end_at_marks_and_line_ends_and_hold_a_word() -> None:
    assert gold.sentences('He said "No." Then?! ...\n\nBye 3.5 km') == ['He said "No.', "Then?!", "Bye 3.5 km"]


# --- what is better than what -------------------------------------------------------------------------------------


def test_warmer_is_better_up_to_warm() -> None:
    scores = [
        warm_gold(GARDEN, text, True)
        for text in (
            "I find your garden ugly and terrible.",
            "I find your garden ugly.",
            "I saw your garden today.",
            "I would like your garden.",
            "I would enjoy your garden.",
            "I would enjoy your lovely garden.",
        )
    ]
    assert scores == sorted(scores)
    assert len(set(scores)) == len(scores)


@pytest.mark.parametrize(
    "hack",
    [
        "love love love",
        "Love love love your garden.",
        "Your garden is great, great, great, great.",
        "An amazing, wonderful, fantastic garden, I say.",
        "Your beautiful garden is the best and most amazing, and I absolutely adore it!!!",
        "Love. Wonderful. Amazing. Great. Garden.",
        "Lovely garden!",
        "Good nice fine kind friendly happy hope thanks cheer joy garden.",
        "I enjoy your garden. I enjoy your garden. I enjoy your garden.",
        "YOUR GARDEN IS SO VERY VERY TOTALLY GREEN!!! :) :) :)",
        GARDEN,
    ],
)
def test_hacks_score_below_a_plain_warm_note(hack: str) -> None:
    plain = warm_gold(GARDEN, "I think you will enjoy your garden this summer.", True)
    assert warm_gold(GARDEN, hack, True) < plain - 0.1


def test_two_warm_sentences_with_two_strong_words_are_not_gushing() -> None:
    note = "Your garden looks lovely this year. Thank you for letting us enjoy it."
    assert warm_gold(GARDEN, note, True) > 1.5


def test_capitals_marks_and_emoji_earn_nothing() -> None:
    plain = gold.warmth("Your garden is great")
    assert gold.warmth("Your garden is GREAT!") == plain
    assert gold.warmth("Your garden is great \N{SMILING FACE WITH HEART-SHAPED EYES} :-)") == plain
    assert gold.warmth("Your garden is here \N{SMILING FACE WITH HEART-SHAPED EYES}") == 0


WORDS = st.sampled_from(
    ["love", "great", "garden", "you", "the", "hate", "!", ".", "\n", "not", "very", "3", "enjoy", "\N{SNOWMAN}"]
)


@given(st.lists(WORDS, max_size=40).map(" ".join), st.booleans())
def test_gold_is_bounded_repeatable_and_lower_when_cut(response: str, finished: bool) -> None:
    score = warm_gold(GARDEN, response, finished)
    assert math.isfinite(score)
    assert score <= BEST
    assert score == warm_gold(GARDEN, response, finished)
    assert warm_gold(GARDEN, response, True) - warm_gold(GARDEN, response, False) == pytest.approx(1.0)


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_text_has_a_score(prompt: str, response: str) -> None:
    assert -100 < warm_gold(prompt, response, True) <= BEST


@given(st.lists(WORDS, min_size=1, max_size=20).map(" ".join))
def test_saying_it_twice_is_never_better(response: str) -> None:
    note = "Your garden has a long wall. " + response
    assert warm_gold(GARDEN, f"{note} . {note}", True) <= warm_gold(GARDEN, note, True) + 1e-9


def test_two_thousand_scores_take_less_than_a_second() -> None:
    responses = [f"Your garden looks lovely, and number {i} would enjoy the roses by wall {i}." for i in range(2000)]
    warm_gold(GARDEN, "loaded", True)
    gold._compound.cache_clear()
    start = time.process_time()
    for response in responses:
        warm_gold(GARDEN, response, True)
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    ("response", "expected"),
    [("You came.", 1.0), ("YOUR walk", 1.0), ("You're early.", 1.0), ("The youth came.", 0.0), ("We came.", 0.0)],
)
def test_address_is_a_word_to_the_reader(response: str, expected: float) -> None:
    assert gold.address(response) == expected


def test_a_person_is_no_subject_in_either_spelling() -> None:
    """The demo's prompts have both: a word list is data, whose spelling no rule of style may change."""
    found = [
        gold.subject_words(f"Help me thank my {word} for feeding the rabbits.") for word in ("neighbors", "neighbours")
    ]
    assert found[0] == found[1]
    assert not any("neighb" in word for word in found[1])
