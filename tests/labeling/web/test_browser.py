"""The pages in Chromium, as people use them. TRIPHASE_SCREENSHOTS=docs/screenshots renews the pictures of the docs."""

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.labeling.crowd import PASSWORD, days_of_work, people
from tests.labeling.web.browsing import answers, chromium, filled, item_shown, new_page, next_after, picture, sign_in

from triphase.labeling.web.application import create_application
from triphase.labeling.web.serving import in_thread
from triphase.labeling.work import invitations, item_plan
from triphase.settings.schema import LabelingSettings
from triphase.store import Store

__all__ = ["chromium"]
pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
SETTINGS = LabelingSettings(overlap_share=0.4, gold_share=0.0, repeat_share=0.0, ask_quality=True)

GUIDELINES = """# What is better

1. It **answers the question**.
2. It is friendly, and true.
3. Of two equals, the *shorter* one.

Do not reward flattery. If you cannot tell, tie them.
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with filled(tmp_path_factory.mktemp("browser"), 40, 4, SETTINGS) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(store: Store) -> Iterator[str]:
    with in_thread(create_application(store, SETTINGS)) as served:
        yield served


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str]]:
    with (
        filled(tmp_path_factory.mktemp("pairs"), 8, 2, LabelingSettings()) as opened,
        in_thread(create_application(opened, LabelingSettings())) as served,
    ):
        yield opened, served


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a store that five people have worked on for nine days."""
    settings = LabelingSettings(overlap=3, overlap_share=0.5, gold_share=0.12, repeat_share=0.12)
    names = ["ann", "bob", "carla", "deniz", "emil"]
    with filled(tmp_path_factory.mktemp("judged"), 220, 4, settings) as opened:
        people(opened, *names)
        with opened.transaction() as connection:
            for n in range(8):
                text = {one.id: len(one.text) for one in opened.responses(f"p{n:03d}")}
                order = sorted(text, key=lambda id_: abs(text[id_] - 90))
                places = {id_: place for place, id_ in enumerate(order, start=1)}
                item_plan.add_gold(connection, f"p{n:03d}", places, now=0.0, by="lea")
        days_of_work(opened, settings, names=names, days=9, now=time.time())
        with in_thread(create_application(opened, settings)) as served:
            yield served


def drag(page: Any, letter: int, slot: int) -> None:
    handle = page.locator(f".card [data-drag='{letter}']")
    handle.scroll_into_view_if_needed()
    begin, end = handle.bounding_box(), page.locator(f"[data-slot='{slot}']").bounding_box()
    page.mouse.move(begin["x"] + 15, begin["y"] + 15)
    page.mouse.down()
    page.mouse.move(begin["x"] + 40, begin["y"] + 40, steps=3)
    page.mouse.move(end["x"] + end["width"] / 2, end["y"] + end["height"] / 2, steps=4)
    page.mouse.up()


def rank_ten_by_keyboard(page: Any) -> None:
    shown = item_shown(page)
    for number in range(10):
        for key in ("2", "1", "3", "="):
            page.keyboard.press(key)
        if number == 0:
            page.keyboard.press("+")
            picture(page, "rank")
        page.keyboard.press("Enter")
        shown = next_after(page, shown)


def rank_ten_by_drag(page: Any) -> None:
    shown = item_shown(page)
    for _ in range(10):
        for letter, slot in ((0, 3), (1, 1), (2, 2), (3, 4)):
            drag(page, letter, slot)
        page.click("#submit")
        shown = next_after(page, shown)


def test_a_labeler_from_invitation_to_twenty_items(store: Store, address: str, chromium: Any) -> None:
    with store.transaction() as connection:
        token = invitations.invite(connection, "labeler", now=time.time(), by="lea")
    page = new_page(chromium, address)
    page.goto(f"/invitation/{token}")
    page.fill("[name=name]", "ann")
    page.fill("[name=password]", PASSWORD)
    page.fill("[name=again]", PASSWORD)
    page.press("[name=again]", "Enter")
    page.wait_for_url("**/rank")
    rank_ten_by_keyboard(page)
    kept = answers(store, "ann")
    assert len(kept) == 10
    assert all([one.ranking.places[id_] for id_ in one.ranking.order_shown] == [2, 1, 3, 3] for one in kept)
    rank_ten_by_drag(page)
    kept = answers(store, "ann")
    assert len(kept) == 20 and all(one.ranking.seconds is not None for one in kept)
    dragged = sorted((one.ranking for one in kept), key=lambda one: one.submitted_at)[10:]
    assert all([one.places[id_] for id_ in one.order_shown] == [3, 1, 2, 4] for one in dragged)

    page.keyboard.press("u")  # undo one
    page.wait_for_selector("#editing:not([hidden])")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("#editing", state="hidden")
    item_shown(page)
    assert len(answers(store, "ann", "superseded")) == 1 and len(answers(store, "ann")) == 20

    shown = item_shown(page)
    page.keyboard.press("f")  # flag one
    page.wait_for_selector("#flag-dialog[open]")
    page.keyboard.press("4")
    page.keyboard.press("Enter")
    page.wait_for_selector("#toast:not([hidden])")
    page.keyboard.press("s")  # skip one
    page.wait_for_selector("#skip-dialog[open]")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    next_after(page, shown)
    (skipped,) = answers(store, "ann", "skipped")
    assert skipped.skip_reason == "all alike"
    page.keyboard.press("?")
    page.wait_for_selector("#keys-dialog[open]")
    page.keyboard.press("Escape")
    assert page.problems == []


def test_the_lead_sees_them(store: Store, address: str, chromium: Any) -> None:
    page = new_page(chromium, address)
    sign_in(page, "lea")
    assert "20" in page.inner_text(".tiles")
    page.click("text=Labelers")
    assert "ann" in page.inner_text("table")
    page.click("nav >> text=Flags")
    assert "personal data" in page.inner_text("table")
    page.click("table a")
    page.wait_for_selector("[name=place-0]")
    page.click("nav >> text=Samples")
    page.select_option("[name=state]", "skipped")
    page.click("text=Filter")
    page.wait_for_load_state()
    assert "1 prompt" in page.inner_text("h1")
    assert page.problems == []


def test_the_lead_sees_how_far_the_labels_can_be_trusted(judged: str, chromium: Any) -> None:
    page = new_page(chromium, judged)
    sign_in(page, "lea")
    assert page.locator("svg.chart").count() == 2
    picture(page, "lead-overview", full_page=True)
    page.click("nav >> text=Labelers")
    assert page.locator("svg.chart").count() == 5, "agreement, gold, consistency, position, length"
    picture(page, "lead-labelers", full_page=True)
    page.click("nav >> text=Conflicts")
    page.click("table a >> nth=0")
    page.wait_for_selector("[name=place-0]")
    picture(page, "lead-prompt", full_page=True)
    for number, place in enumerate((2, 1, 3, 4)):
        page.fill(f"[name=place-{number}]", str(place))
    page.fill("[name=note]", "B answers the question")
    page.click("text=My ranking decides")
    page.wait_for_selector("text=lea decided on")
    assert page.problems == []


@pytest.mark.parametrize("clipboard", [True, False])  # pages served without TLS have none
def test_an_invitation_link_is_copied_with_one_button(judged: str, chromium: Any, clipboard: bool) -> None:
    page = new_page(chromium, judged, permissions=["clipboard-read", "clipboard-write"] if clipboard else [])
    if not clipboard:
        page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    sign_in(page, "lea")
    page.goto("/lead/labelers")
    page.click("text=Create a link")
    page.click("button[data-copy]")
    page.wait_for_selector("button[data-copy]:has-text('Copied')")
    link = page.input_value("input.link")
    assert "/invitation/" in link and page.evaluate("getSelection().toString()") in ("", link)
    if clipboard:
        assert page.evaluate("navigator.clipboard.readText()") == link
    assert page.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_leads_pages_fit_a_phone(judged: str, chromium: Any, scheme: str) -> None:
    phone = {"viewport": {"width": 390, "height": 800}, "is_mobile": True, "color_scheme": scheme}
    page = new_page(chromium, judged, **phone)
    sign_in(page, "lea")
    for path in ("", "/labelers", "/conflicts", "/flags", "/samples", "/guidelines", "/audit", "/prompt?id=p000"):
        page.goto(f"/lead{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, f"/lead{path} is wider than the phone"
    for path in ("/labelers", "/labelers/ann"):
        page.goto(f"/lead{path}")
        right = "dots => Math.max(...dots.map(dot => dot.getBoundingClientRect().right))"
        assert page.locator(".chart .dot").evaluate_all(right) <= 390, "every value of a chart is in sight"
        size = "all => Math.min(...all.map(one => parseFloat(getComputedStyle(one).fontSize) * one.getScreenCTM().a))"
        assert page.locator(".chart text").evaluate_all(size) >= 11, "and its words can be read"
    for path in ("/samples", "/conflicts"):
        page.goto(f"/lead{path}")
        narrow = "links => Math.min(...links.map(link => link.closest('td').getBoundingClientRect().width))"
        assert page.locator("td .words").evaluate_all(narrow) >= 200, (
            "prompts are not squeezed into a column of letters"
        )
    page.goto("/lead/audit")
    lines = "times => Math.max(...times.map(time => time.getClientRects().length))"
    assert page.locator("time").evaluate_all(lines) == 1, "a date stands on one line"


def test_the_leads_pages_on_paper_are_light_and_whole(judged: str, chromium: Any) -> None:
    page = new_page(chromium, judged, viewport={"width": 718, "height": 1040}, color_scheme="dark")
    sign_in(page, "lea")
    page.emulate_media(media="print", color_scheme="dark")
    beyond = "nodes => nodes.filter(node => node.getBoundingClientRect().right > innerWidth + 1).length"
    for path in ("", "/labelers", "/labelers/ann", "/conflicts", "/samples", "/prompt?id=p130"):
        page.goto(f"/lead{path}")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.locator("main *").evaluate_all(beyond) == 0, path
        assert not page.is_visible("nav") and page.locator("main button:visible").count() == 0, path


def test_two_responses_are_a_comparison(pairs: tuple[Store, str], chromium: Any) -> None:
    store, address = pairs
    people(store, "gil")
    page = new_page(chromium, address)
    sign_in(page, "gil")
    shown = item_shown(page)
    assert page.locator("#slots").is_hidden() and page.locator("[data-place]").count() == 2
    for key in ("1", "2", "ArrowLeft", "ArrowRight", "="):
        page.keyboard.press(key)
        if key == "2":
            picture(page, "pair")
        page.keyboard.press("Enter")
        shown = next_after(page, shown)
    page.click("[data-card='1'] [data-place='1']")
    page.keyboard.press("Enter")
    next_after(page, shown)
    kept = sorted((one.ranking for one in answers(store, "gil")), key=lambda one: one.submitted_at)
    places = [[one.places[id_] for id_ in one.order_shown] for one in kept]
    assert places == [[1, 2], [2, 1], [1, 2], [2, 1], [1, 1], [2, 1]]
    assert page.problems == []


def test_a_draft_survives_and_partial_rankings_ask_once(store: Store, address: str, chromium: Any) -> None:
    people(store, "bob")
    page = new_page(chromium, address)
    sign_in(page, "bob")
    shown = item_shown(page)
    for key in ("2", "1"):
        page.keyboard.press(key)
    page.wait_for_function("() => document.querySelector('#saved').textContent === 'draft saved'")
    page.evaluate("localStorage.clear()")
    page.reload()
    assert item_shown(page) == shown
    assert page.locator(".card.placed").count() == 2
    before = len(answers(store, "bob"))
    page.keyboard.press("Enter")
    assert "Press Enter again to submit" in page.inner_text("#toast")
    page.keyboard.press("Enter")
    next_after(page, shown)
    kept = answers(store, "bob")
    assert len(kept) == before + 1 and min(len(one.ranking.places) for one in kept) == 2
    assert page.problems == []


def test_a_server_away_is_told_and_the_answer_is_sent_later(store: Store, address: str, chromium: Any) -> None:
    people(store, "cy")
    page = new_page(chromium, address)
    sign_in(page, "cy")
    shown = item_shown(page)
    page.context.set_offline(True)
    for key in ("1", "2"):
        page.keyboard.press(key)
    page.wait_for_function("() => document.querySelector('#saved').textContent === 'draft kept in this browser'")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.wait_for_selector("#away:not([hidden])")
    assert "kept here" in page.inner_text("#away")
    assert page.evaluate("Object.keys(localStorage).some((key) => key.startsWith('triphase draft'))")
    page.context.set_offline(False)
    next_after(page, shown)
    assert len(answers(store, "cy")) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(store: Store, address: str, chromium: Any, scheme: str) -> None:
    name = f"dee-{scheme}"
    people(store, name)
    phone = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True, "color_scheme": scheme}
    page = new_page(chromium, address, **phone)
    sign_in(page, name)
    shown = item_shown(page)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390, "the page is wider than the phone"
    for position in range(4):
        page.tap(f"[data-card='{position}'] [data-place='{position + 1}']")
    page.wait_for_timeout(300)  # the colors of the last tap fade
    picture(page, f"phone-{scheme}")
    page.tap("#submit")
    next_after(page, shown)
    assert len(answers(store, name)) == 1


def test_in_the_dark(store: Store, address: str, chromium: Any) -> None:
    people(store, "eve")
    page = new_page(chromium, address, color_scheme="dark")
    sign_in(page, "eve")
    item_shown(page)
    page.keyboard.press("2")
    picture(page, "rank-dark")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in re.findall(r"\d+", background)[:3]) < 60


def test_names_and_focus_for_screen_readers(store: Store, address: str, chromium: Any) -> None:
    people(store, "fay")
    page = new_page(chromium, address)
    sign_in(page, "fay")
    item_shown(page)
    assert page.evaluate("document.activeElement.id") == "prompt", "reading begins with the prompt"
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, textarea, select, [tabindex="0"]')]
        .filter((one) => one.checkVisibility())
        .filter((one) => !(one.innerText || '').trim() && !one.getAttribute('aria-label') && !one.labels?.length)
        .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    page.keyboard.press("1")
    assert page.inner_text("#live") != "" and "1st" in page.get_attribute("[data-card='0']", "aria-label")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement !== document.body")
    assert page.locator("[role=status][aria-live=polite]").count() == 1
    assert page.get_attribute("html", "lang") == "en"


def test_new_guidelines_open_once_and_stay_beside_the_work(store: Store, address: str, chromium: Any) -> None:
    lead = new_page(chromium, address)
    sign_in(lead, "lea")
    lead.goto("/lead/guidelines")
    lead.fill("#text", GUIDELINES)
    lead.click("text=Save as version")
    people(store, "hal")
    page = new_page(chromium, address)
    sign_in(page, "hal")
    shown = item_shown(page)
    page.wait_for_selector("#guidelines-dialog[open] h1")
    for key in ("1", "2", "3", "4"):
        page.keyboard.press(key)
    picture(page, "guidelines")
    page.keyboard.press("Enter")
    next_after(page, shown)
    (answer,) = answers(store, "hal")
    assert answer.guideline_version == 1
    page.reload()
    item_shown(page)
    assert page.locator("#guidelines-dialog[open]").count() == 0, "it was new only once"
    page.keyboard.press("g")
    page.wait_for_selector("#guidelines-dialog[open]")
    page.reload()
    page.wait_for_selector("#guidelines-dialog[open]")
    page.keyboard.press("g")
    page.wait_for_selector("#guidelines-dialog:not([open])", state="attached")
    assert page.problems == []
