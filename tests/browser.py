"""Debian's Chromium, for the tests of pages."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

CHROMIUM = Path("/usr/bin/chromium")


@contextmanager
def launched() -> Iterator[Any]:
    """A browser, closed at the end of the block; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}; install it with: apt-get install chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def too_wide(page: Any) -> list[str]:
    """What stands out of the page to the right and is in nothing that scrolls; none where the page fits."""
    found: list[str] = page.evaluate(
        """() => {
          const width = document.documentElement.clientWidth;
          const clipped = (node) => {
            for (let up = node.parentElement; up && up !== document.body; up = up.parentElement)
              if (getComputedStyle(up).overflowX !== "visible") return true;
            return false;
          };
          const wide = [...document.querySelectorAll("body *")].filter(
            (node) => node.getBoundingClientRect().right > width + 1 && !clipped(node));
          if (document.documentElement.scrollWidth > width) wide.push(document.documentElement);
          return wide.map((node) => `${node.tagName} ${node.id} ${node.getAttribute("class") ?? ""}`);
        }"""
    )
    return found


class Opening(NamedTuple):
    """How a page opened: milliseconds to the first paint and to the end of loading, and its elements."""

    painted: float
    loaded: float
    elements: int


def opening(browser: Any, path: Path) -> Opening:
    """Open a file in a new window and see how long it takes."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(path.as_uri())
    found = page.evaluate(
        """() => [performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? NaN,
                  performance.getEntriesByType("navigation")[0].loadEventEnd, document.querySelectorAll("*").length]"""
    )
    context.close()
    return Opening(*found)
