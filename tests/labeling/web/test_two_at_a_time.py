"""Two responses at a time: K are ranked by binary insertion, with ties, drafts and a way back, and stored as ever."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from tests.labeling.crowd import people
from tests.labeling.web.browsing import answers, chromium, item_shown, new_page, one_item, page_of, sign_in

from triphase.records.types import Message
from triphase.store import Store

__all__ = ["chromium"]
pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
WORTH = {"one": 3, "two": 1, "three": 2, "four": 2, "five": 0}
"""How good each response is: more is better, equals tie."""


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str]]:
    with one_item(tmp_path_factory.mktemp("five"), list(WORTH), [Message("user", "Say a number.")]) as both:
        yield both


def asked(page: Any) -> list[str]:
    return [one.inner_text().strip() for one in page.locator(".card:visible .body").all()]


def answer(page: Any) -> str:
    """Answers one question by the keyboard; returns the key."""
    left, right = (WORTH[text] for text in asked(page))
    key = "=" if left == right else "1" if left > right else "2"
    page.keyboard.press(key)
    return key


def places(texts: Sequence[str]) -> list[int]:
    return [1 + sum(WORTH[other] > WORTH[text] for other in texts) for text in texts]


def test_five_responses_are_ranked_by_pair_questions(five: Any, chromium: Any) -> None:
    page = page_of(five, chromium, "ann")
    texts = asked(page)
    page.keyboard.press("t")
    keys = []
    while page.locator("body.two").count():
        assert len(asked(page)) == 2 and f"Question {len(keys) + 1} of" in page.inner_text("#question")
        keys.append(answer(page))
    assert len(keys) <= sum(math.ceil(math.log2(k)) for k in range(2, 6)) and "=" in keys
    assert "Enter to submit" in page.inner_text("#toast") and len(asked(page)) == 5
    page.keyboard.press("Enter")
    page.wait_for_selector("#nothing:not([hidden])")
    (kept,) = answers(five[0], "ann")
    assert [kept.ranking.places[id_] for id_ in kept.ranking.order_shown] == places(texts)
    assert page.problems == []


def test_a_draft_survives_in_the_middle_of_an_insertion_and_answers_can_be_taken_back(five: Any, chromium: Any) -> None:
    page = page_of(five, chromium, "bob")
    texts = asked(page)
    page.keyboard.press("t")
    for _ in range(3):
        answer(page)
    before = asked(page)
    page.keyboard.press("1")
    page.keyboard.press("Backspace")
    assert asked(page) == before, "taken back"
    page.wait_for_function("() => document.querySelector('#saved').textContent === 'draft saved'")
    page.evaluate(
        """() => Object.keys(localStorage).filter((key) => key.startsWith("triphase draft"))
        .forEach((key) => localStorage.removeItem(key))"""
    )
    page.reload()
    item_shown(page)
    assert asked(page) == before, "the same question, from the draft of the server"
    page.click(f".card:visible >> nth={0 if WORTH[before[0]] >= WORTH[before[1]] else 1} >> .better")
    if WORTH[before[0]] == WORTH[before[1]]:
        page.keyboard.press("Backspace")
        page.click("[data-act=tie]")
    while page.locator("body.two").count():
        answer(page)
    page.keyboard.press("t")  # the overview again, and an ordinary change there
    page.keyboard.press("Enter")
    page.wait_for_selector("#nothing:not([hidden])")
    (kept,) = answers(five[0], "bob")
    assert [kept.ranking.places[id_] for id_ in kept.ranking.order_shown] == places(texts)
    assert page.problems == []


@pytest.mark.parametrize("key", ["2", "="])
def test_a_key_too_many_after_the_last_question_changes_nothing(five: Any, chromium: Any, key: str) -> None:
    page = page_of(five, chromium, f"eve{ord(key)}")
    page.keyboard.press("t")
    while page.locator("body.two").count():
        page.keyboard.press("2")

    def ranked() -> list[str]:
        return [" ".join(one.inner_text().split()) for one in page.locator(".slot").all()]

    before = ranked()
    page.keyboard.press(key)
    assert ranked() == before and "All questions are answered" in page.inner_text("#toast")
    page.keyboard.press("t")  # on one page again the keys place responses
    page.keyboard.press("2")
    assert ranked() != before
    page.keyboard.press("t")
    assert page.problems == []


def test_on_a_phone_the_dock_stays_low(five: Any, chromium: Any) -> None:
    store, address = five
    people(store, "cy")
    page = new_page(chromium, address, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    sign_in(page, "cy")
    item_shown(page)
    for _ in range(2):
        assert page.evaluate("document.querySelector('#desk').getBoundingClientRect().height / innerHeight") < 0.15
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.tap("#two")
    page.tap("#two")
    page.tap(".card:visible .better >> nth=0")
    assert "Question 2" in page.inner_text("#question")


def test_every_order_is_found_with_the_fewest_questions_of_an_insertion(five: Any, chromium: Any) -> None:
    page = page_of(five, chromium, "dee")
    orders = [list(worth) for count in (2, 3, 4, 5) for worth in itertools.product(range(count), repeat=count)][:1200]
    orders += [list(worth) for worth in itertools.islice(itertools.permutations(range(9)), 0, 362880, 3001)]
    found = page.evaluate(
        """async (orders) => {
          const { question, answered, mostQuestions } = await import("/static/insertion.js");
          return orders.map((worth) => {
            let state = { places: worth.map(() => null), inserting: null };
            const most = mostQuestions(state.places, null);
            let count = 0;
            for (let asked = question(state.places, null); asked; asked = question(state.places, state.inserting)) {
              const { left, right } = asked;
              if (count + mostQuestions(state.places, state.inserting) > most) throw new Error("more than was said");
              const better = worth[left] === worth[right] ? null : worth[left] > worth[right] ? left : right;
              state = answered(state.places, state.inserting, better);
              count += 1;
            }
            return [state.places, count, most];
          });
        }""",
        orders,
    )
    for worth, (given, count, most) in zip(orders, found, strict=True):
        assert given == [1 + sum(other > one for other in worth) for one in worth]
        assert count <= most == sum(math.ceil(math.log2(k)) for k in range(2, len(worth) + 1))
