"""Reading long responses in Chromium: the dock leaves them room, they fold, and what differs is marked."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from tests.labeling.crowd import PLAIN, people
from tests.labeling.web.browsing import chromium, item_shown, new_page, one_item, page_of, sign_in
from tests.labeling.web.hostile import HOSTILE

from triphase.labeling.web.application import create_application
from triphase.labeling.web.serving import in_thread
from triphase.labeling.work import item_plan
from triphase.records.types import Message, Prompt, Response
from triphase.store import Store, open_store

__all__ = ["chromium"]
pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
SENTENCES = [f"Sentence {n} of the answer says a little more about the weather at the sea." for n in range(60)]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str]]:
    """A store of one prompt with four responses: three of 60 sentences, which differ in one word, and a short one."""
    texts = [" ".join(SENTENCES).replace("Sentence 1 ", f"{word} 1 ") for word in ("Line", "Phrase", "Verse")]
    with one_item(tmp_path_factory.mktemp("long"), [*texts, "Fine."], [Message("user", "How is the weather?")]) as both:
        yield both


def share_of_the_dock(page: Any) -> float:
    return float(page.evaluate("document.querySelector('#desk').getBoundingClientRect().height / innerHeight"))


@pytest.mark.parametrize("viewport", [(1280, 800), (390, 844), (1280, 600), (844, 390)])
def test_the_dock_is_low_and_covers_nothing(long: Any, chromium: Any, viewport: tuple[int, int]) -> None:
    width, height = viewport
    page = page_of(long, chromium, f"ann{width}{height}", viewport={"width": width, "height": height})
    assert share_of_the_dock(page) < 0.15
    assert page.inner_text("#desk .bar") and page.locator("#submit").is_visible()
    low = height <= 640
    assert page.locator(".strength .hint").is_visible() != low
    page.keyboard.press("m")
    assert page.locator(".strength .hint").is_visible()
    last = page.locator("[data-card='3']")
    last.scroll_into_view_if_needed()
    page.evaluate("document.querySelector('#reading').scrollTo(0, 1e6)")
    card, dock = last.bounding_box(), page.locator("#desk").bounding_box()
    assert card["y"] + card["height"] <= dock["y"], "the last response ends above the dock"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.problems == []


def test_long_responses_fold_and_say_how_much_is_hidden(long: Any, chromium: Any) -> None:
    page = page_of(long, chromium, "bob")
    folded = page.locator(".card.folded")
    assert folded.count() == 3
    assert (
        page.locator("[data-fold]:visible").first.inner_text()
        == f"Show all {len(' '.join(SENTENCES).split())} words (O)"
    )
    page.locator("[data-fold]:visible").first.click()
    assert folded.count() == 2
    page.keyboard.press("Shift+O")
    assert folded.count() == 3, "once some are open, Shift+O folds all"
    page.keyboard.press("Shift+O")
    assert folded.count() == 0
    texts = [one.inner_text() for one in page.locator(".card .body").all()]
    for count, position in enumerate((n for n, text in enumerate(texts) if text != "Fine."), start=1):
        page.focus(f"[data-card='{position}']")
        page.keyboard.press("o")
        assert folded.count() == count
    assert page.problems == []


def test_what_differs_from_the_outlined_response_is_marked(long: Any, chromium: Any) -> None:
    page = page_of(long, chromium, "cy")
    texts = [one.inner_text() for one in page.locator(".card .body").all()]
    first = next(position for position, text in enumerate(texts) if text != "Fine.")
    page.focus(f"[data-card='{first}']")
    page.keyboard.press("d")
    for position, text in enumerate(texts):
        marks = [mark.inner_text() for mark in page.locator(f"[data-card='{position}'] mark").all()]
        if position == first:
            assert marks == []
        elif text != "Fine.":
            assert marks == [text.split(". ")[1].split()[0]], "the one word in which they differ"
        assert page.locator(f"[data-card='{position}'] .body").inner_text() == text, "marks change no word"
    page.keyboard.press("d")
    assert page.locator("mark").count() == 0 and page.problems == []


def longest_common(these: Sequence[str], others: Sequence[str]) -> int:
    """Slow reference."""
    best = [[0] * (len(others) + 1) for _ in range(len(these) + 1)]
    for i, one in enumerate(these):
        for j, other in enumerate(others):
            best[i + 1][j + 1] = best[i][j] + 1 if one == other else max(best[i][j + 1], best[i + 1][j])
    return best[-1][-1]


def test_the_words_that_stay_are_a_longest_common_subsequence(long: Any, chromium: Any) -> None:
    page = page_of(long, chromium, "dee")
    draw = random.Random(3)
    pairs = [[[draw.choice("abcd") for _ in range(draw.randrange(12))] for _ in range(2)] for _ in range(60)]
    pairs += [[[], []], [["a"], []], [["a"] * 5, ["a"] * 3]]
    kept = page.evaluate(
        """async (pairs) => {
          const { common } = await import("/static/differences.js");
          const keep = (words, other) => words.filter((_, n) => common(words, other)[n]);
          return pairs.map(([one, other]) => [keep(one, other), keep(other, one)]);
        }""",
        pairs,
    )
    for (one, other), (of_one, of_other) in zip(pairs, kept, strict=True):
        best = longest_common(one, other)
        assert len(of_one) == len(of_other) == best
        assert longest_common(of_one, one) == longest_common(of_one, other) == best, "a subsequence of both"


def test_markdown_is_formatted_and_nothing_comes_of_hostile_texts(
    tmp_path_factory: pytest.TempPathFactory, chromium: Any
) -> None:
    texts = [*HOSTILE[:8], "# Answer\n\n**Yes**, with `code` and\n\n| a | b |\n|---|---|\n| 1 | 2 |"]
    messages = [Message("user", HOSTILE[0]), Message("assistant", "Hm."), Message("user", "Go.")]
    with one_item(tmp_path_factory.mktemp("nasty"), texts, messages) as (store, address):
        page = new_page(chromium, address)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        people(store, "eve")
        sign_in(page, "eve")
        item_shown(page)
        page.keyboard.press("Shift+O")
        inside = "#reading a, #reading img, #reading script, #reading style, #reading iframe, #reading svg"
        for _ in range(2):  # formatted, then as written
            assert page.locator(inside).count() == 0 and page.title() == "Rank – Triphase"
            assert page.locator("#reading [style], #reading [onclick], #reading [onerror]").count() == 0
            page.keyboard.press("r")
        page.keyboard.press("r")
        assert "**Yes**" in page.inner_text("#responses") and page.locator("#reading strong").count() == 0
        page.keyboard.press("r")
        assert page.locator("#responses strong").first.inner_text() == "Yes"
        assert page.locator("#responses td").count() >= 2 and page.locator("#prompt-text.chat .turn").count() == 3
        assert page.locator("#responses .code").count() >= 1
        assert all(one.startswith(address) for one in asked), "nothing is loaded from elsewhere"
        assert page.problems == []


def test_a_goal_of_ones_own_and_back_where_one_was(long: Any, chromium: Any) -> None:
    page = page_of(long, chromium, "gus")
    assert "0 today" in page.inner_text("#progress-text")
    page.click("[data-act=goal]")
    page.fill("#goal-number", "2")
    page.press("#goal-number", "Enter")
    page.wait_for_function("() => document.querySelector('#progress-text').textContent.startsWith('0 of 2 today')")
    page.focus("[data-card='0']")
    page.keyboard.press("1")
    page.keyboard.press("2")
    page.wait_for_function("() => document.querySelector('#saved').textContent === 'draft saved'")
    page.reload()
    item_shown(page)
    page.wait_for_selector("#toast:not([hidden])")
    assert "back where you were" in page.inner_text("#toast") and page.locator(".card.placed").count() == 2
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.wait_for_selector("#nothing:not([hidden])")
    page.wait_for_function("() => document.querySelector('#progress-text').textContent.startsWith('1 of 2 today')")
    assert page.inner_text("#progress-text") == "1 of 2 today · none waiting"
    texts = page.evaluate(
        """async () => {
          const { progressText } = await import("/static/goal.js");
          const at = (today, left, median_seconds) => progressText({ done: 9, today, left, median_seconds });
          return [at(1, 50, 30), at(2, 50, 30), at(3, 0, null)];
        }"""
    )
    assert texts == ["1 of 2 today · about 1 min to go", *(f"Your goal of 2 is reached: {n} today" for n in (2, 3))]
    assert page.problems == []


def test_how_much_is_waiting_is_not_cut_on_a_phone(long: Any, chromium: Any) -> None:
    page = page_of(long, chromium, "hal", **PHONE)
    height = page.evaluate("document.querySelector('header').offsetHeight")
    found = page.evaluate(
        """() => {
          const text = document.querySelector("#progress-text");
          text.textContent = "12 today · 128 in all · 45 s each · 230 waiting";
          return [text.scrollWidth - text.clientWidth, document.querySelector("header").offsetHeight];
        }"""
    )
    assert found == [0, height]


def test_on_a_phone_nine_places_stand_in_one_row_and_the_dock_stays_low(
    tmp_path_factory: pytest.TempPathFactory, chromium: Any
) -> None:
    texts = [f"Answer number {word}." for word in "one two three four five six seven eight nine".split()]
    with one_item(tmp_path_factory.mktemp("nine"), texts, [Message("user", "Count.")]) as both:
        page = page_of(both, chromium, "ivy", **PHONE)
        assert share_of_the_dock(page) < 0.15
        tops = page.locator("[data-card='0'] [data-place]").evaluate_all("all => all.map(one => one.offsetTop)")
        assert len(tops) == 9 and len(set(tops)) == 1
        assert page.evaluate("document.documentElement.scrollWidth") <= 390 and page.problems == []


def test_the_list_of_keys_opens_at_its_beginning(tmp_path_factory: pytest.TempPathFactory, chromium: Any) -> None:
    with one_item(tmp_path_factory.mktemp("keys"), ["One.", "Two."], [Message("user", "Count.")]) as both:
        page = page_of(both, chromium, "jon")
        dialog = page.locator("#keys-dialog")
        for width, height in ((1280, 800), (390, 844)):
            page.set_viewport_size({"width": width, "height": height})
            page.keyboard.press("?")
            assert dialog.evaluate("node => node.scrollTop") == 0
            assert page.evaluate("document.activeElement.id") == "keys-title"
            box, close = dialog.bounding_box(), page.locator("#keys-dialog [data-close]").bounding_box()
            assert close["y"] + close["height"] <= box["y"] + box["height"], "the way out is always in sight"
            page.keyboard.press("Escape")
            assert not dialog.is_visible()


def test_who_comes_before_the_first_item_is_told_so_and_gets_it_when_it_is_there(
    tmp_path_factory: pytest.TempPathFactory, chromium: Any
) -> None:
    with open_store(tmp_path_factory.mktemp("early")) as store, in_thread(create_application(store, PLAIN)) as address:
        people(store, "kim")
        page = new_page(chromium, address)
        page.clock.install()
        sign_in(page, "kim")
        page.wait_for_selector("#nothing:not([hidden])")
        assert page.inner_text("#nothing h1") == "Nothing to rank yet" and not page.is_visible("#nothing-undo")
        page.focus("[data-act=goal]")
        page.clock.run_for(30_100)
        page.wait_for_selector("body:not(.busy)")
        assert page.evaluate("document.activeElement.dataset.act") == "goal", "looking again takes no focus"
        store.add_prompts([Prompt("p", (Message("user", "Hello?"),))])
        store.add_responses(Response(f"p-{k}", "p", f"Answer {k}", "m") for k in range(2))
        item_plan.make_items(store, PLAIN, seed=0, now=0.0)
        page.clock.run_for(30_100)
        assert "Hello?" in item_shown(page)
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        page.wait_for_selector("#nothing:not([hidden])")
        assert page.inner_text("#nothing h1") == "All done" and page.is_visible("#nothing-undo")
        assert page.problems == []
