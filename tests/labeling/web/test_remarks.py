"""Ratings by criterion, why, and a response as it should be, on the page: kept as drafts, and with the ranking."""

from typing import Any

import pytest
from tests.labeling.crowd import PLAIN
from tests.labeling.web.browsing import answers, chromium, item_shown, one_item, page_of

from triphase.records.types import Message

__all__ = ["chromium"]
pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
ASKING = PLAIN.model_copy(update={"criteria": ("helpful", "honest"), "ask_rationale": True, "ask_rewrite": True})


def test_remarks_survive_a_reload_and_are_kept_with_the_ranking(
    tmp_path_factory: pytest.TempPathFactory, chromium: Any
) -> None:
    directory, texts = tmp_path_factory.mktemp("remarks"), ["First answer.", "Second answer.", "Third answer."]
    with one_item(directory, texts, [Message("user", "Answer.")], ASKING) as both:
        page = page_of(both, chromium, "ann")
        shown = [one.inner_text() for one in page.locator(".card .text").all()]
        page.focus("[data-card='1']")
        page.keyboard.press("e")
        assert page.input_value("[data-rewrite-text='1']") == shown[1], "it begins with the response itself"
        page.fill("[data-rewrite-text='1']", "As it should be.")
        page.select_option("[data-criterion='0'][data-position='2']", "6")
        page.keyboard.press("Escape")
        page.focus("[data-card='0']")
        page.keyboard.press("w")
        page.keyboard.type("It answers.")
        page.wait_for_function("() => document.querySelector('#saved').textContent === 'draft saved'")
        page.evaluate("localStorage.clear()")
        page.reload()
        item_shown(page)
        assert page.input_value("#rationale") == "It answers."
        assert page.input_value("[data-criterion='0'][data-position='2']") == "6"
        page.focus("[data-card='0']")
        for key in ("1", "2", "3", "Enter"):
            page.keyboard.press(key)
        page.wait_for_selector("body:not(.busy) #nothing:not([hidden])")
        (kept,) = answers(both[0], "ann")
        order = kept.ranking.order_shown
        assert kept.rationale == "It answers." and kept.rewrites == {order[1]: "As it should be."}
        assert kept.ratings == {"helpful": {order[2]: 6}}
        page.keyboard.press("u")
        page.wait_for_selector("#editing:not([hidden])")
        assert page.input_value("[data-rewrite-text='1']") == "As it should be."
        assert page.problems == []
