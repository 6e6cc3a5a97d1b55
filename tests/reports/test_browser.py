"""The pages of reports in Chromium, from the file as people open them."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser import launched, opening, too_wide
from tests.reports.long_run import write_long_run
from tests.reports.pages import write_pages
from tests.reports.synthetic import write_run

from triphase.reports.live import LiveReport
from triphase.reports.page import write_report
from triphase.reports.server import serving

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
KINDS = ("report", "report of an empty run", "report of one iteration", "comparison", "sweep", "study", "runs")
HOSTILE = "</div><script>window.hit = 1</script><img src=x onerror='window.hit = 2'>"
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


@pytest.mark.parametrize("kind", KINDS)
def test_paper_is_light_and_nothing_on_it_is_cut_or_collapsed(chromium: Any, pages: dict[str, Path], kind: str) -> None:
    page = opened(chromium, pages[kind], viewport={"width": 718, "height": 1040}, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    beyond = "nodes => nodes.filter(node => node.getBoundingClientRect().right > innerWidth + 1).length"
    assert page.locator("main *").evaluate_all(beyond) == 0
    unseen = "nodes => nodes.filter(node => !node.checkVisibility() || !node.getBoundingClientRect().height).length"
    assert page.locator("details:not([open]) > :not(summary)").evaluate_all(unseen) == 0
    if kind == "report":
        assert page.locator("#sample-list .sample").count() == 40 and page.locator("#shown").is_visible()
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("#sample-list .sample").count() == 12
    unnamed = """boxes => boxes.filter(box => box.tabIndex || !(box.ariaLabel || box.querySelector("figcaption")
        || document.getElementById(box.getAttribute("aria-labelledby")))).length"""
    assert page.locator(".scroll, .wide").evaluate_all(unnamed) == 0
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
        page.locator(f".contents a[href='{name}'][aria-current]").wait_for()  # the bar itself scrolls to it
        assert page.url.endswith(name)
        assert 0 <= page.locator(name).bounding_box()["y"] < 110
        assert page.locator(".contents").bounding_box()["y"] == pytest.approx(0, abs=1)
    page.context.close()


@pytest.mark.parametrize("kind", ["comparison", "sweep", "study", "runs"])
def test_other_pages_have_contents_and_headings_that_stay(chromium: Any, pages: dict[str, Path], kind: str) -> None:
    page = opened(chromium, pages[kind], viewport=PHONE)
    links = page.locator(".contents a").all()
    assert len(links) > 1
    for link in links:
        link.click()
        name = link.get_attribute("href")
        assert page.url.endswith(name)
        in_sight = "name => { const { top } = document.querySelector(name).getBoundingClientRect(); "
        page.wait_for_function(in_sight + "return top >= 0 && top < innerHeight; }", arg=name)
        assert page.locator(".contents").bounding_box()["y"] == pytest.approx(0, abs=1)
    stays = "nodes => nodes.map(node => getComputedStyle(node).position)"
    headings = page.locator("main section > h2").evaluate_all(stays)
    assert headings and set(headings) == {"sticky"}
    section = page.locator("section:has(> h2[id])").nth(1)
    page.evaluate("node => scrollTo(0, node.offsetTop + node.offsetHeight - 120)", section.element_handle())
    assert 0 <= section.locator("h2").bounding_box()["y"] < 60, "the heading stays while its section is read"
    assert page.problems == []
    page.context.close()


@pytest.mark.parametrize("kind", ["report", "comparison", "sweep", "study", "runs"])
def test_words_in_figures_can_be_read_on_a_phone(chromium: Any, pages: dict[str, Path], kind: str) -> None:
    page = opened(chromium, pages[kind], viewport=PHONE)
    sizes = page.locator("figure svg text").evaluate_all(
        """texts => texts.filter(text => !text.closest(".says")).map(text => {
             const { a, b } = text.getScreenCTM();
             return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(a, b);
           })"""
    )
    assert sizes and min(sizes) >= 9.4
    page.context.close()


@pytest.mark.parametrize("kind", ["report", "comparison", "study"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_words_in_figures_do_not_lie_on_one_another(
    chromium: Any, pages: dict[str, Path], kind: str, size: dict[str, int]
) -> None:
    page = opened(chromium, pages[kind], viewport=size)
    found = page.locator("figure svg").evaluate_all(
        """figures => figures.flatMap(figure => {
             const words = [...figure.querySelectorAll("text")].filter(text => !text.closest(".says"))
               .map(text => [text.textContent, text.getBoundingClientRect()]);
             return words.flatMap(([one, here], at) => words.slice(at + 1).filter(([, there]) =>
               Math.min(here.right, there.right) - Math.max(here.left, there.left) > 2
               && Math.min(here.bottom, there.bottom) - Math.max(here.top, there.top) > 4)
               .map(([other]) => `${one} and ${other}`));
           })"""
    )
    assert found == []
    page.context.close()


def test_a_long_run_has_a_page_that_opens_at_once(chromium: Any, tmp_path: Path) -> None:
    report = write_report(write_long_run(tmp_path / "long"))
    assert report.stat().st_size < 5_000_000
    found = sorted((opening(chromium, report) for _ in range(3)), key=lambda each: each.loaded)[0]
    assert found.elements < 30_000
    assert found.loaded < 4000  # milliseconds; under 1000 where nothing else runs: python -m benchmarks.report


def first_prompts(page: Any, count: int = 3) -> list[str]:
    return [text for text in page.locator("#sample-list > .sample > h3").all_text_contents()[:count]]


def test_samples_are_searched_and_sorted(chromium: Any, pages: dict[str, Path]) -> None:
    page = opened(chromium, pages["report"])
    fixed = first_prompts(page)
    assert page.locator("#sample-list .sample").count() == 12 and "40 of 40" in page.text_content("#shown")
    page.click("#show-more")
    assert page.locator("#sample-list .sample").count() == 40 and page.is_hidden("#show-more")

    def key(of: str, place: int) -> list[float]:
        keys = page.locator("#sample-list > .sample").evaluate_all("nodes => nodes.map(node => node.dataset.keys)")
        return [json.loads(each)[of][place] for each in keys]

    for sort, place in (("0-", 0), ("1-", 1), ("2-", 2), ("3-", 3), ("3+", 3)):
        page.select_option("#sort", sort)
        values = key("ppo", place)
        assert values == sorted(values, reverse=sort.endswith("-")) and len(values) == 12
    page.select_option("#of", "arm:no-penalty")
    assert key("arm:no-penalty", 3) == sorted(key("arm:no-penalty", 3))
    page.select_option("#sort", "")
    assert first_prompts(page) == fixed
    page.fill("#search", "LIGHTHOUSE colleague")
    assert first_prompts(page) == ["Tell a colleague about a lighthouse."] and "1 of 40" in page.text_content("#shown")
    assert page.evaluate("CSS.highlights.get('found').size") > 1
    page.fill("#search", "nowhere to be found")
    assert first_prompts(page) == [] and "0 of 40" in page.text_content("#shown")
    page.fill("#search", "")
    assert first_prompts(page) == fixed and page.problems == []
    page.locator(".sample summary").first.click()
    assert page.locator(".sample details .answers").first.is_visible()
    page.context.close()


def test_without_script_every_sample_can_be_read(chromium: Any, pages: dict[str, Path]) -> None:
    page = opened(chromium, pages["report"], java_script_enabled=False)
    assert page.is_hidden("#controls") and page.locator("#sample-list .sample").count() == 40
    page.click("#more > summary")
    assert page.locator("#sample-list .sample").last.is_visible()
    page.context.close()


def test_hostile_samples_do_nothing_when_searched_and_sorted(chromium: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    path = run / "evaluation" / "samples.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row.update(
            response="</div><script>window.hit = 1</script><img src=x onerror='window.hit = 2'>" + row["response"]
        )
        row.update(prompt="<svg onload='window.hit = 3'>" + row["prompt"])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = opened(chromium, write_report(run))
    page.fill("#search", "<img src=x onerror=")
    page.select_option("#sort", "1-")
    assert page.locator("#sample-list .sample").count() == 12
    assert page.evaluate("window.hit") is None and page.problems == []
    page.context.close()


def test_the_policy_stops_a_script_that_got_in(chromium: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    html = pages["report"].read_text(encoding="utf-8")
    broken = tmp_path / "report.html"
    broken.write_text(
        html.replace("<main>", "<main><script>window.hit = 1</script><img src=x onerror='window.hit = 2'>")
    )
    page = opened(chromium, broken)
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit") is None and page.locator("#controls").is_visible()
    page.context.close()


def test_a_served_page_renews_itself_and_loses_nothing(chromium: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    metrics = run / "ppo" / "metrics.jsonl"
    rows = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(rows[:-1]))
    clock = [0.0]
    live = LiveReport(run, is_worked_on=lambda: True, clock=lambda: clock[0])
    with serving(live, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        page = chromium.new_context(viewport=DESK).new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(server.address)
        assert "PPO iteration 19" in page.text_content("#live")
        page.fill("#search", "lighthouse")
        page.locator("#answers ~ details, details.card").last.locator("summary").click()
        opened = page.locator("details[open]").count()
        page.evaluate("window.same = true")
        metrics.write_text("".join(rows))
        clock[0] += 60
        page.locator("#live", has_text="PPO iteration 20").wait_for()
        page.locator("#iterations ~ div svg", has_text="iteration 20").first.wait_for()
        assert page.evaluate("window.same") and page.input_value("#search") == "lighthouse"
        assert page.locator("#sample-list .sample").count() == 1 and page.locator("details[open]").count() == opened
        page.wait_for_timeout(300)
        assert [each for each in problems if "favicon" not in each] == []
        server.shutdown()
        thread.join()
    page.locator("#live", has_text="does not answer").wait_for()
    page.context.close()
