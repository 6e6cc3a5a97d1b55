"""Pictures of a run's report for the documentation.

    python -m tests.reports.screenshots RUN DIRECTORY

`make screenshots` makes these and the pictures of the labeling pages.
"""

import argparse
from pathlib import Path
from typing import Any

from tests.browser import launched

from triphase.reports.page import write_report

DESK, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}


def main() -> None:
    """Write the report again, and take its pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    take(write_report(options.run), options.directory)


def take(report: Path, directory: Path) -> None:
    """The verdict at a desk and on a phone, curves in the dark with values under the pointer, samples searched."""
    with launched() as browser:
        _picture(browser, report, directory / "report.png")
        _picture(browser, report, directory / "report-phone.png", viewport=PHONE)
        page = _opened(browser, report, color_scheme="dark")
        page.locator("#iterations").scroll_into_view_if_needed()
        page.evaluate("document.querySelector('#iterations').scrollIntoView()")
        page.locator("#iterations ~ div svg").first.locator(".at").last.hover()
        _kept(page, directory / "report-dark.png")
        page = _opened(browser, report)
        page.evaluate("document.querySelector('#samples').scrollIntoView()")
        page.select_option("#sort", "1-")
        _kept(page, directory / "report-samples.png")


def _opened(browser: Any, report: Path, **options: Any) -> Any:
    page = browser.new_context(**{"viewport": DESK, **options}).new_page()
    page.goto(report.resolve().as_uri())
    return page


def _kept(page: Any, path: Path) -> None:
    page.wait_for_timeout(300)
    page.screenshot(path=str(path))
    page.context.close()


def _picture(browser: Any, report: Path, path: Path, **options: Any) -> None:
    _kept(_opened(browser, report, **options), path)


if __name__ == "__main__":
    main()
