"""Campaigns in Chromium: rating with the keys under the campaign's own guidelines, and the lead's pages."""

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import insert
from tests.browser import too_wide
from tests.labeling.crowd import PLAIN, people
from tests.labeling.web.browsing import (
    answers,
    chromium,
    filled,
    item_shown,
    new_page,
    next_after,
    picture,
    sign_in,
)
from tests.labeling.web.test_accessibility import kinds, serious

from triphase.labeling.web.application import create_application
from triphase.labeling.web.serving import in_thread
from triphase.labeling.work import campaigns
from triphase.labeling.work.campaign_plan import Campaign
from triphase.store import Store
from triphase.store.schema import flags

__all__ = ["chromium"]
pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
RULES = "# Kindness\n\n7 is a letter to a friend, 1 an insult."


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str]]:
    with filled(tmp_path_factory.mktemp("campaigns"), 8, 4, PLAIN) as store:
        people(store, "ann")
        with store.transaction() as connection:
            given = {"settings": PLAIN, "seed": 0, "now": time.time(), "by": "lea"}
            campaigns.add_guidelines(connection, "Rank what is more useful.", now=time.time(), by="lea")
            campaigns.add_campaign(connection, Campaign("kindness of the tone", "rating", 60, most=2), RULES, **given)
            duel = Campaign("new policy", "policies", 40, 2, ("sft-0", "sft-3"), "train")
            campaigns.add_campaign(connection, duel, "", **given)
        with in_thread(create_application(store, PLAIN)) as address:
            yield store, address


def test_a_labeler_rates_with_the_keys(served: tuple[Store, str], chromium: Any) -> None:
    store, address = served
    page = new_page(chromium, address)
    sign_in(page, "ann")
    shown = item_shown(page)
    rated = 0
    for _ in range(12):
        if page.is_visible("dialog[open]:modal"):
            page.keyboard.press("Escape")
        task = page.text_content("#task")
        if "rate" in task:
            page.wait_for_function("() => document.querySelector('#guidelines-dialog').textContent.includes('insult')")
            assert task == "kindness of the tone: rate each response from 1 to 7"
            assert not page.locator(".card .places").first.is_visible() and not page.is_visible("#slots")
            assert not serious(page) and not too_wide(page)
            assert not page.locator(".strength").is_visible(), "the ratings say how much better"
            page.focus("[data-card='0']")
            page.keyboard.press("5")
            page.keyboard.press("Enter")
            assert "Rate every response" in page.text_content("#toast")
            page.focus("[data-card='1']")
            for key in ("7", "5", "2"):
                page.keyboard.press(key)
            assert page.locator(".card .badge").all_text_contents() == ["2nd, tied", "1st", "2nd, tied", "4th"]
            rated += 1
        else:
            page.wait_for_function("() => document.querySelector('#guidelines-dialog').textContent.includes('useful')")
            count = page.locator("[data-card]").count()
            page.focus("[data-card='0']")
            for key in ("1",) if count == 2 else ("1", "2", "3", "4"):
                page.keyboard.press(key)
        page.keyboard.press("Enter")
        if rated == 2:
            break
        shown = next_after(page, shown)
    assert rated == 2
    page.wait_for_selector("body:not(.busy)")
    given = [one for one in answers(store, "ann") if one.campaign == "kindness of the tone"]
    order = given[0].ranking.order_shown
    assert [given[0].quality[id_] for id_ in order] == [5, 7, 5, 2]
    assert [given[0].ranking.places[id_] for id_ in order] == [2, 1, 2, 4]
    page.keyboard.press("u")
    page.wait_for_selector("#editing:not([hidden])")
    assert (
        "rate each" in page.text_content("#task")
        and page.locator("[data-quality='7'][aria-pressed='true']").count() == 1
    )
    assert page.problems == []
    page.context.close()


@kinds
def test_the_leads_pages_of_campaigns(served: tuple[Store, str], chromium: Any, kind: dict[str, Any]) -> None:
    page = new_page(chromium, served[1], **kind)
    sign_in(page, "lea")
    scheme = kind["color_scheme"]
    for name, address in (
        ("list", "/lead/campaigns"), ("rating", "/lead/campaign?name=kindness+of+the+tone"),
        ("policies", "/lead/campaign?name=new+policy"), ("audit", "/lead/audit"), ("overview", "/lead"),
    ):  # fmt: skip
        page.goto(address)
        if name == "list" and scheme == "light":
            picture(page, "lead-campaigns", full_page=True)
        assert serious(page) == [] and too_wide(page) == [], name
    assert page.problems == []
    page.context.close()


def test_a_campaign_is_made_and_paused_on_the_page(served: tuple[Store, str], chromium: Any) -> None:
    page = new_page(chromium, served[1])
    sign_in(page, "lea")
    page.goto("/lead/campaigns")
    page.fill("[name=name]", "style")
    page.check("[name=task][value=ab]")
    page.fill("[name=share]", "90")
    page.click("text=Start the campaign")
    assert "give 0 at most" in page.text_content("[role=alert]")
    assert page.input_value("[name=name]") == "style" and page.is_checked("[name=task][value=ab]")
    page.fill("[name=share]", "0")
    page.click("text=Start the campaign")
    page.wait_for_url(re.compile("/lead/campaign.name=style"))
    page.click("text=Pause")
    page.wait_for_selector("text=Resume")
    page.click("summary:has-text('End')")
    page.click("text=End this campaign")
    page.wait_for_selector("text=It has ended")
    page.context.close()


def test_lists_refresh_by_themselves_and_leave_a_form_alone(served: tuple[Store, str], chromium: Any) -> None:
    store, address = served
    page = new_page(chromium, address, viewport={"width": 390, "height": 844})
    page.clock.install()
    sign_in(page, "lea")
    page.goto("/lead/campaigns")
    page.fill("[name=name]", "half a name")

    def flagged(note: str) -> None:
        with store.transaction() as connection:
            values = {
                "prompt_id": "p001",
                "labeler": "ann",
                "reason": "broken",
                "note": note,
                "created_at": time.time(),
            }
            connection.execute(insert(flags).values(**values))
        page.clock.run_for(10_100)

    with store.transaction() as connection:
        given = {"settings": PLAIN, "seed": 0, "now": time.time(), "by": "lea"}
        campaigns.add_campaign(connection, Campaign("begun meanwhile", "ab", 0, most=2), RULES, **given)
    page.clock.run_for(10_100)
    page.wait_for_selector("table >> text=begun meanwhile")
    assert page.input_value("[name=name]") == "half a name"
    page.goto("/lead/conflicts")
    assert page.locator("[data-live] h1").count() == 1
    page.goto("/lead/flags")
    flagged("the first")
    page.wait_for_selector("table >> text=the first")
    page.fill("[name=resolution]", "half a word")
    page.evaluate("document.activeElement.blur()")
    flagged("the second")
    page.wait_for_timeout(500)
    assert page.input_value("[name=resolution]") == "half a word" and "the second" not in page.inner_text("main")
    page.fill("[name=resolution]", "")
    page.evaluate("document.activeElement.blur(); document.querySelector('.scroll').scrollLeft = 40")
    page.mouse.move(1, 1)
    page.clock.run_for(10_100)
    page.wait_for_selector("table >> text=the second")
    assert page.evaluate("document.querySelector('.scroll').scrollLeft") == 40
    assert page.problems == []
    page.context.close()
