"""Chromium and a store whose items read like people's, for the tests of the pages in a browser."""

import os
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.browser import launched
from tests.labeling.crowd import PASSWORD, PLAIN, people

from triphase.labeling.web.application import create_application
from triphase.labeling.web.serving import in_thread
from triphase.labeling.work import item_plan
from triphase.records.types import Message, Prompt, Response
from triphase.settings.schema import LabelingSettings
from triphase.store import Store, open_store

SCREENSHOTS = os.environ.get("TRIPHASE_SCREENSHOTS")
PATIENCE = float(os.environ.get("TRIPHASE_BROWSER_SECONDS", "60")) * 1000
SUBJECTS = ("the new library", "a walk in the rain", "the old harbour", "your first bicycle", "a good breakfast")
ANSWERS = (
    "It is a quiet, friendly place, and I would gladly go back there with you on Saturday.",
    "Well, it exists. People go there. Some of them come back, I think.",
    "You would love it! The light in the afternoon is wonderful, and there is always a free seat near the window.",
    "amazing amazing amazing amazing!!!!",
    "I am not sure what to say about that, but here is a list: one, two, three, and",
    "Honestly, it made my week: small, warm, and full of people who have time for a word or two.",
)


def filled(directory: Path, prompts: int, responses: int, settings: LabelingSettings) -> Store:
    """An open store with items that read like people's, and a lead."""
    draw = random.Random(4)
    opened = open_store(directory)
    added = [
        Prompt(f"p{n:03d}", (Message("user", f"Tell a colleague about {draw.choice(SUBJECTS)} (no. {n})."),), "warm")
        for n in range(prompts)
    ]
    opened.add_prompts(added)
    opened.add_responses(
        Response(f"{prompt.id}-{k}", prompt.id, text, f"sft-{k}", not text.endswith("and"))
        for prompt in added
        for k, text in enumerate(draw.sample(ANSWERS, responses))
    )
    item_plan.make_items(opened, settings, seed=0, now=0.0)
    people(opened, "lea", role="lead")
    return opened


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with launched() as browser:
        yield browser


def new_page(chromium: Any, address: str, **options: Any) -> Any:
    context = chromium.new_context(base_url=address, **{"viewport": {"width": 1280, "height": 860}, **options})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
    return page


def picture(page: Any, name: str, **options: Any) -> None:
    if SCREENSHOTS:
        page.screenshot(path=f"{SCREENSHOTS}/{name}.png", **options)


def sign_in(page: Any, name: str) -> None:
    page.goto("/sign-in")
    page.fill("[name=name]", name)
    page.fill("[name=password]", PASSWORD)
    page.press("[name=password]", "Enter")
    page.wait_for_url(re.compile("/(rank|lead)$"))


def item_shown(page: Any) -> str:
    page.wait_for_selector("body:not(.busy) #work:not([hidden]) [data-card]")
    return str(page.inner_text("#prompt-text"))


def next_after(page: Any, shown: str) -> str:
    page.wait_for_function("(old) => document.querySelector('#prompt-text').innerText !== old", arg=shown)
    return item_shown(page)


def answers(store: Store, name: str, status: str = "active") -> list[Any]:
    return [one for one in store.answers(counted=False) if one.ranking.labeler == name and one.status == status]


@contextmanager
def one_item(
    directory: Path, texts: Sequence[str], messages: Sequence[Message], settings: LabelingSettings = PLAIN
) -> Iterator[tuple[Store, str]]:
    """A store with these responses to one prompt, for nine people, and the address of its page."""
    with open_store(directory) as store:
        store.add_prompts([Prompt("p", tuple(messages), "warm")])
        store.add_responses(Response(f"p-{k}", "p", text, f"m{k}", True) for k, text in enumerate(texts))
        item_plan.make_items(store, settings.model_copy(update={"rankings_per_prompt": 9}), seed=0, now=0.0)
        with in_thread(create_application(store, settings)) as address:
            yield store, address


def page_of(store_and_address: tuple[Store, str], chromium: Any, name: str, **options: Any) -> Any:
    """The labeler's page of somebody new, with the first item on it."""
    store, address = store_and_address
    people(store, name)
    page = new_page(chromium, address, **options)
    sign_in(page, name)
    item_shown(page)
    return page
