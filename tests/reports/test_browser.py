"""The pages of reports in Chromium, from the file as people open them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser import launched, too_wide
from tests.reports.pages import write_pages

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
KINDS = ("report", "report of an empty run", "report of one iteration", "comparison", "sweep", "study")
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_pages(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with launched() as browser:
        yield browser


def opened(chromium: Any, path: Path, **options: Any) -> Any:
    """A page that notes what went wrong in it."""
    context = chromium.new_context(**{"viewport": DESK, "reduced_motion": "reduce", **options})
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: page.problems.append(request.url) if "file:" not in request.url else None)
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_no_page_is_wider_than_its_window(
    chromium: Any, pages: dict[str, Path], kind: str, scheme: str, size: dict[str, int]
) -> None:
    page = opened(chromium, pages[kind], viewport=size, color_scheme=scheme)
    for summary in page.locator("summary").all():
        summary.click()
    assert too_wide(page) == []
    assert page.problems == []
    page.context.close()


@pytest.mark.parametrize("script", [True, False], ids=["with script", "without"])
def test_values_stand_under_the_pointer(chromium: Any, pages: dict[str, Path], script: bool) -> None:
    page = opened(chromium, pages["report"], java_script_enabled=script)
    figure = page.locator("figure", has=page.locator("svg[aria-label='Gold score over iterations']"))
    box = figure.locator(".at").nth(9).locator(".says")
    assert not box.is_visible()
    figure.locator(".at").nth(9).hover()
    assert box.is_visible() and "iteration 10" in box.text_content() and "no-penalty" in box.text_content()
    page.context.close()


def test_contents_stay_in_sight_and_lead_to_their_section(chromium: Any, pages: dict[str, Path]) -> None:
    page = opened(chromium, pages["report"], viewport=PHONE)
    for link in page.locator(".contents a").all():
        link.click()
        name = link.get_attribute("href")
        assert page.url.endswith(name)
        assert 0 <= page.locator(name).bounding_box()["y"] < 110
        assert page.locator(".contents").bounding_box()["y"] == pytest.approx(0, abs=1)
    page.context.close()


def test_a_report_opens_at_once(chromium: Any, pages: dict[str, Path]) -> None:
    opened(chromium, pages["report"]).context.close()
    begun = time.perf_counter()
    page = opened(chromium, pages["report"])
    assert time.perf_counter() - begun < 5  # on a busy machine; `python -m benchmarks.report` measures it
    page.context.close()
