"""Stores, accounts and clients for the tests of the labeling page."""

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI
from starlette.testclient import TestClient

from triphase.labeling.simulation.simulated import SimulatedLabelers
from triphase.labeling.web.application import create_application
from triphase.labeling.web.context import ServerSettings
from triphase.labeling.work import accounts, assignment, item_plan, submission
from triphase.labeling.work.answer_content import Submission
from triphase.records.types import Message, Prompt, Response
from triphase.settings.schema import LabelingSettings
from triphase.store import Store

PASSWORD = "a long enough password"
PLAIN = LabelingSettings(overlap_share=0.0, gold_share=0.0, repeat_share=0.0)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.time = 1_760_000_000.0

    def __call__(self) -> float:
        return self.time


def fill(store: Store, count: int, responses: int = 4) -> None:
    draw = random.Random(7)
    prompts = [Prompt(f"p{n:05d}", (Message("user", f"Tell a colleague about thing {n}."),)) for n in range(count)]
    store.add_prompts(prompts)
    store.add_responses(
        Response(
            f"{prompt.id}-{k}", prompt.id, f"answer {k} to {prompt.id} " + "word " * draw.randrange(20), f"model-{k}"
        )
        for prompt in prompts
        for k in range(responses)
    )


def people(store: Store, *names: str, role: str = "labeler") -> None:
    hashed = accounts.hashed(PASSWORD)
    with store.transaction() as connection:
        for name in names:
            accounts.add_account(connection, name, role, hashed, now=0.0, by="test")


def prepared(store: Store, settings: LabelingSettings, count: int, *names: str, responses: int = 4) -> None:
    fill(store, count, responses)
    item_plan.make_items(store, settings, seed=0, now=0.0)
    people(store, *names)


def days_of_work(store: Store, settings: LabelingSettings, *, names: list[str], days: int, now: float) -> None:
    """Simulated labelers rank a few items on each of the last days, through the same functions as the page."""
    crowd = SimulatedLabelers(lambda _prompt, text, _finished: -abs(len(text) - 90) / 30, 3, len(names))
    prompts = {one.id: one for one in store.prompts()}
    texts = {one.id: one for one in store.responses()}
    crowd.standardize([(prompts[one.prompt_id], one) for one in texts.values()])
    for day in range(days):
        for name, alias in zip(names, crowd.names, strict=True):
            clock = now - (days - day) * 86400.0 + 60.0 * len(name)
            for round_ in range(4 + (3 * day + len(name)) % 7):
                with store.transaction() as connection:
                    taken = assignment.next_assignment(connection, name, settings, seed=1, now=clock)
                    if taken is None:
                        break
                    shown = [texts[id_] for id_ in taken.order_shown]
                    choice = crowd.choose(prompts[taken.prompt_id], shown, alias, round_)
                    clock += choice.seconds
                    places = [choice.places[one.id] for one in shown]
                    submission.submit(connection, name, taken.id, Submission(places, choice.seconds), now=clock)


@contextmanager
def served(
    store: Store, settings: LabelingSettings = PLAIN, clock: Clock | None = None, metrics_token: str = ""
) -> Iterator[FastAPI]:
    server = ServerSettings(now=clock or Clock(), most_body_bytes=64 * 1024, metrics_token=metrics_token)
    app = create_application(store, settings, server)
    try:
        yield app
    finally:
        app.state.context.close()


def client(app: FastAPI, **options: object) -> TestClient:
    return TestClient(app, base_url="http://127.0.0.1", follow_redirects=False, **options)


def signed_in(app: FastAPI, name: str) -> TestClient:
    browser = client(app)
    answer = browser.post("/sign-in", data={"name": name, "password": PASSWORD})
    assert answer.status_code == 303, answer.text
    page = browser.get(answer.headers["location"])
    browser.headers["x-csrf-token"] = re.search(r'name="csrf" content="([^"]+)"', page.text).group(1)
    return browser
