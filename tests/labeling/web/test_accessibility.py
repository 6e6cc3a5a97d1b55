"""axe-core finds no serious fault on any page, light, dark, or on a phone; and the keyboard reaches all."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.labeling.crowd import days_of_work, people
from tests.labeling.web.browsing import chromium, filled, item_shown, new_page, one_item, sign_in

from triphase.labeling.web.application import create_application
from triphase.labeling.web.serving import in_thread
from triphase.labeling.work import invitations
from triphase.records.types import Message
from triphase.settings.schema import LabelingSettings

__all__ = ["chromium"]
pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
MARKDOWN = """## Answer

Yes: *sum* is `a + b`, see [this](https://example.org).

```python
def add(first: int, second: int) -> int:  # a remark
    return first + second + len("text") + 17  # a line that is so long that it has to scroll in any column
```

| a | much | wider | table | than | a | phone | has | room | for |
|---|---|---|---|---|---|---|---|---|---|
| 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 |

$$\\sum_{i=1}^n \\frac{a_i}{b_i} = \\sqrt{c} + d + e + f + g + h + i + j + k + l + m + n + o + p + q + r + s + t + u$$
"""
ARABIC = "الترتيب السريع يختار محورا ثم يقسم القائمة إلى جزأين"
KINDS = (
    {"color_scheme": "light"},
    {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}, "is_mobile": True},
)
kinds = pytest.mark.parametrize("kind", KINDS, ids=["light", "dark, phone"])


def serious(page: Any) -> list[str]:
    """What axe-core calls serious or critical on the page as it stands."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page.wait_for_timeout(200)  # colors fade
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['target']} {[check['message'] for check in node['any'] + node['all']][:2]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.fixture(scope="module")
def lead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store that three people have worked on, with a conflict, a flag, an invitation and nobody's empty pages."""
    settings = LabelingSettings(overlap=3, overlap_share=0.6, gold_share=0.0)
    with filled(tmp_path_factory.mktemp("lead"), 60, 4, settings) as store:
        people(store, "ann", "bob", "carla")
        days_of_work(store, settings, names=["ann", "bob", "carla"], days=4, now=time.time())
        with in_thread(create_application(store, settings)) as address:
            yield address


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    messages = [
        Message("system", "Be brief."),
        Message("user", "Hello."),
        Message("assistant", "Yes?"),
        Message("user", ARABIC),
    ]
    with one_item(tmp_path_factory.mktemp("texts"), [MARKDOWN, ARABIC, "Short.", ""], messages) as both:
        yield both


@kinds
def test_the_labelers_page(texts: Any, chromium: Any, kind: dict[str, Any]) -> None:
    store, address = texts
    name = f"ann-{kind['color_scheme']}"
    page = new_page(chromium, address, **kind)
    page.goto("/sign-in")
    assert serious(page) == []
    people(store, name)
    sign_in(page, name)
    item_shown(page)
    for keys in ((), ("1", "d"), ("d", "t"), ("t", "r"), ("r", "?"), ("Escape", "s"), ("Escape", "f"), ("Escape", "n")):
        for key in keys:
            page.keyboard.press(key)
        assert serious(page) == [], keys
    page.keyboard.press("Escape")
    for key in ("1", "2", "3", "4", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector("#nothing:not([hidden])")
    assert serious(page) == []


@kinds
def test_the_leads_pages(lead: str, chromium: Any, kind: dict[str, Any]) -> None:
    page = new_page(chromium, lead, **kind)
    sign_in(page, "lea")
    for path in (
        "",
        "/labelers",
        "/labelers/ann",
        "/conflicts",
        "/flags",
        "/samples",
        "/guidelines",
        "/audit",
        "/prompt?id=p000",
    ):
        page.goto(f"/lead{path}")
        assert serious(page) == [], path


def test_right_to_left_text_and_the_turns_of_a_chat(texts: Any, chromium: Any) -> None:
    store, address = texts
    people(store, "rtl")
    page = new_page(chromium, address)
    sign_in(page, "rtl")
    item_shown(page)
    directions = page.evaluate(
        """() => [...document.querySelectorAll(".turn .text, .card .text")]
        .map((one) => [one.textContent.slice(0, 3), getComputedStyle(one).direction])"""
    )
    assert {direction for text, direction in directions if text == ARABIC[:3]} == {"rtl"}
    assert {direction for text, direction in directions if text != ARABIC[:3]} == {"ltr"}
    assert page.locator(".chat .role").all_inner_texts() == ["Instructions", "Person", "Assistant", "Person"]


def test_a_table_in_a_response_stays_a_table_on_the_leads_page_on_a_phone(texts: Any, chromium: Any) -> None:
    store, address = texts
    people(store, "head", role="lead")
    page = new_page(chromium, address, **KINDS[1])
    sign_in(page, "head")
    page.goto("/lead/prompt?id=p")
    assert page.locator(".formatted th").first.is_visible()
    tops = page.locator(".formatted tbody tr").first.locator("td").evaluate_all("all => all.map(one => one.offsetTop)")
    assert len(tops) == 10 and len(set(tops)) == 1
    assert page.locator(".stacked > tbody > tr > td:first-child").all_inner_texts() == ["1", "2", "3", "4"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    beside = page.locator(".scroll:has(.stacked)").evaluate("node => node.scrollWidth - node.clientWidth")
    assert beside == 0, "responses wrap; only their code and tables scroll"


def test_the_keyboard_reaches_everything_in_the_order_of_the_page(texts: Any, chromium: Any) -> None:
    store, address = texts
    people(store, "tab")
    page = new_page(chromium, address)
    sign_in(page, "tab")
    item_shown(page)
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.dataset.card ?? document.activeElement.id"))
        if seen[-1] == "submit":
            break
    cards = [one for one in seen if one in ("0", "1", "2", "3")]
    assert cards == ["0", "1", "2", "3"] and seen.index("submit") > seen.index("3")


def test_forms_of_invitations(texts: Any, chromium: Any) -> None:
    store, address = texts
    people(store, "boss", role="lead")
    with store.transaction() as connection:
        token = invitations.invite(connection, "labeler", now=time.time(), by="boss")
    page = new_page(chromium, address)
    page.goto(f"/invitation/{token}")
    assert serious(page) == []
    page.goto("/invitation/none")
    assert serious(page) == []
