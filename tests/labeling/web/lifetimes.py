"""What ends each invitation, session, token, counter, lease and campaign; test_lifetimes.py executes each row.

python -m tests.labeling.web.lifetimes SECURITY.md     write the table into the document
"""

import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient
from tests.labeling.crowd import PASSWORD, PLAIN, Clock, client, fill, people, served, signed_in

from triphase.cli.label import first_lead_link
from triphase.labeling.web import guard
from triphase.labeling.web.sessions import (
    MOST_FAILURES_OF_ADDRESS,
    MOST_FAILURES_OF_NAME,
    SESSION_HOURS,
    WINDOW_SECONDS,
)
from triphase.labeling.work import accounts, campaigns, invitations, item_plan, labeler_status
from triphase.labeling.work.campaign_plan import Campaign
from triphase.store import Store, open_store

BEGIN, END = "<!-- lifetimes: begin -->", "<!-- lifetimes: end -->"
NEW = "a password that is new"


@dataclass(frozen=True, slots=True)
class World:
    """A store with the labelers ann and bob and the leads lea and lou, and the page over it."""

    store: Store
    app: FastAPI
    clock: Clock

    def invited(self, role: str = "labeler", by: str = "lea", name: str | None = None) -> str:
        with self.store.transaction() as connection:
            return invitations.invite(connection, role, now=self.clock(), by=by, name=name)

    def status(self, name: str, status: str) -> None:
        with self.store.transaction() as connection:
            labeler_status.set_status(connection, name, status, now=self.clock(), by="lou")

    def new_password(self, name: str) -> None:
        hashed = accounts.hashed(NEW)
        with self.store.transaction() as connection:
            accounts.set_password(connection, name, hashed, now=self.clock(), by="lou")

    def opens(self, token: str) -> bool:
        return client(self.app).get(f"/invitation/{token}").status_code == 200

    def accepts(self, token: str, name: str = "new") -> bool:
        form = {"name": name, "password": NEW, "again": NEW}
        return client(self.app).post(f"/invitation/{token}", data=form).status_code == 303

    def sign_in(self, name: str, password: str = PASSWORD) -> int:
        return client(self.app).post("/sign-in", data={"name": name, "password": password}).status_code

    def lead_link(self) -> str:
        link = first_lead_link(self.store, "")
        assert link is not None
        return link.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Lifetime:
    """One way in which one thing ends. ``play`` shows that it holds before, brings its end about, and gives a probe."""

    thing: str
    ends: str
    play: Callable[[World], Callable[[], bool]]
    leads: bool = True


def _link(bring: Callable[[World, str], object], **made: str) -> Callable[[World], Callable[[], bool]]:
    def play(world: World) -> Callable[[], bool]:
        token = world.invited(**made)
        assert world.opens(token)
        bring(world, token)
        return lambda: world.opens(token) or world.accepts(token)

    return play


def _session(bring: Callable[[World, TestClient], object], name: str = "ann") -> Callable[[World], Callable[[], bool]]:
    def play(world: World) -> Callable[[], bool]:
        browser, home = signed_in(world.app, name), "/rank" if name == "ann" else "/lead"
        assert browser.get(home).status_code == 200
        cookie = browser.cookies[guard.COOKIE]
        bring(world, browser)
        again = client(world.app)
        again.cookies.set(guard.COOKIE, cookie)
        return lambda: again.get(home).status_code == 200

    return play


def _first_lead(bring: Callable[[World, str], object]) -> Callable[[World], Callable[[], bool]]:
    def play(world: World) -> Callable[[], bool]:
        token = world.lead_link()
        assert world.opens(token)
        bring(world, token)
        return lambda: world.opens(token) or world.accepts(token)

    return play


def _later(seconds: float) -> Callable[..., None]:
    def wait(world: World, *_: object) -> None:
        world.clock.time += seconds

    return wait


def _days_after_now(world: World, _token: str) -> None:
    """The command that prints the link goes by the machine's clock."""
    world.clock.time = time.time() + DAYS * 86400 + 1


def _revoked(world: World, _token: str) -> None:
    lea = signed_in(world.app, "lea")
    (found,) = re.findall(r"/lead/invitations/(\w+)/revoke", lea.get("/lead/labelers").text)
    assert lea.post(f"/lead/invitations/{found}/revoke").status_code == 303


def _refused(name: str, count: int) -> Callable[[World], None]:
    def fail(world: World) -> None:
        for number in range(count):
            assert world.sign_in(name.format(number), "wrong password") == 403

    return fail


def _failures(name: str, count: int, tried: str) -> Callable[[World], Callable[[], bool]]:
    def play(world: World) -> Callable[[], bool]:
        _refused(name, count)(world)
        assert world.sign_in(tried) == 429
        world.clock.time += WINDOW_SECONDS + 1
        return lambda: world.sign_in(tried) == 429

    return play


def _clock_set_back(name: str, count: int, tried: str) -> Callable[[World], Callable[[], bool]]:
    def play(world: World) -> Callable[[], bool]:
        _refused(name, count)(world)
        assert world.sign_in(tried) == 429
        world.clock.time -= 86400.0
        return lambda: world.sign_in(tried) == 429

    return play


def _right_password(world: World) -> Callable[[], bool]:
    for _ in range(MOST_FAILURES_OF_NAME + 4):
        assert world.sign_in("ann") == 303
    return lambda: world.sign_in("ann") == 429


def _metrics(changed: str) -> Callable[[World], Callable[[], bool]]:
    def shown(world: World, token: str) -> int:
        header = {"authorization": "Bearer the token of before"}
        with served(world.store, clock=world.clock, metrics_token=token) as app:
            return client(app).get("/metrics", headers=header).status_code

    def play(world: World) -> Callable[[], bool]:
        assert shown(world, "the token of before") == 200
        return lambda: shown(world, changed) == 200

    return play


def _elsewhere(world: World) -> Callable[[], bool]:
    """A comparison judged by people has its own store, with the same names."""
    browser = signed_in(world.app, "ann")
    assert browser.get("/rank").status_code == 200

    def holds() -> bool:
        with tempfile.TemporaryDirectory() as folder, open_store(Path(folder) / "labels.sqlite") as other:
            people(other, "ann")
            with served(other, clock=world.clock) as app:
                again = client(app)
                again.cookies.set(guard.COOKIE, browser.cookies[guard.COOKIE])
                return again.get("/rank").status_code == 200

    return holds


def _item(browser: TestClient) -> dict[str, Any] | None:
    found: dict[str, Any] | None = browser.get("/api/next").json()["item"]
    return found


def _places(item: dict[str, Any], *, backwards: bool = False) -> list[int]:
    places = list(range(1, len(item["responses"]) + 1))
    return places[::-1] if backwards else places


def _lease(bring: Callable[[World, TestClient, int], object]) -> Callable[[World], Callable[[], bool]]:
    """Of a single item: while ann has it, there is none for bob."""

    def play(world: World) -> Callable[[], bool]:
        fill(world.store, 1)
        item_plan.make_items(world.store, PLAIN, seed=0, now=world.clock())
        ann, bob = signed_in(world.app, "ann"), signed_in(world.app, "bob")
        item = _item(ann)
        assert item is not None and _item(bob) is None
        bring(world, ann, item["assignment"])
        return lambda: _item(bob) is None

    return play


def _given_back(_: World, browser: TestClient, slot: int) -> None:
    answer = browser.post("/api/skips", json={"assignment": slot, "reason": "other"})
    assert answer.status_code == 200, answer.text


def _late(bring: Callable[[World, TestClient, dict[str, Any]], object]) -> Callable[[World], Callable[[], bool]]:
    """The receipt of an item that went to bob: ann's answer is kept by it, as late."""

    def play(world: World) -> Callable[[], bool]:
        fill(world.store, 1)
        item_plan.make_items(world.store, PLAIN, seed=0, now=world.clock())
        ann, bob = signed_in(world.app, "ann"), signed_in(world.app, "bob")
        item = _item(ann)
        assert item is not None
        world.clock.time += 60.0 * PLAIN.lease_minutes + 1
        assert _item(bob) is not None
        bring(world, ann, item)
        again = {"assignment": item["assignment"], "receipt": item["receipt"], "next": False}
        return lambda: ann.post("/api/answers", json={**again, "places": _places(item)}).status_code == 200

    return play


def _answered(_: World, browser: TestClient, item: dict[str, Any]) -> None:
    said = {"assignment": item["assignment"], "receipt": item["receipt"], "next": False}
    answer = browser.post("/api/answers", json={**said, "places": _places(item, backwards=True)})
    assert answer.json()["status"] == "late", answer.text


def _campaign(state: str) -> Callable[[World], Callable[[], bool]]:
    def play(world: World) -> Callable[[], bool]:
        fill(world.store, 3)
        with world.store.transaction() as connection:
            campaigns.add_campaign(connection, Campaign("more"), "", PLAIN, seed=0, now=world.clock(), by="lea")
        lea, ann = signed_in(world.app, "lea"), signed_in(world.app, "ann")
        item = _item(ann)
        assert item is not None
        assert ann.post("/api/answers", json={"assignment": item["assignment"], "places": _places(item)}).json()["item"]
        assert lea.post("/lead/campaign?name=more", data={"change": state}).status_code == 303
        return lambda: _item(signed_in(world.app, "bob")) is not None

    return play


DAYS = invitations.INVITATION_DAYS
LIFETIMES: tuple[Lifetime, ...] = (
    Lifetime("invitation", "it is used", _link(lambda world, token: world.accepts(token, "cy"))),
    Lifetime("invitation", f"{DAYS:.0f} days pass", _link(_later(DAYS * 86400 + 1))),
    Lifetime("invitation", "a lead revokes it", _link(_revoked)),
    Lifetime("invitation", "whoever made it is withdrawn", _link(lambda world, _: world.status("lea", "withdrawn"))),
    Lifetime("invitation", "whoever made it is paused", _link(lambda world, _: world.status("lea", "paused"))),
    Lifetime("link for a new password", "it is used", _link(lambda world, token: world.accepts(token), name="ann")),
    Lifetime("link for a new password", f"{DAYS:.0f} days pass", _link(_later(DAYS * 86400 + 1), name="ann")),
    Lifetime(
        "link for a new password",
        "the account gets a new password, by another link or a command",
        _link(lambda world, _: world.new_password("ann"), name="ann"),
    ),
    Lifetime(
        "link for a new password",
        "another link for the same account is used",
        _link(lambda world, _: world.accepts(world.invited(name="ann")), name="ann"),
    ),
    Lifetime(
        "link for a new password",
        "the account is withdrawn",
        _link(lambda world, _: world.status("ann", "withdrawn"), name="ann"),
    ),
    Lifetime("link for a new password", "a lead revokes it", _link(_revoked, name="ann")),
    Lifetime(
        "link for a new password",
        "whoever made it is paused or withdrawn",
        _link(lambda world, _: world.status("lea", "paused"), name="ann"),
    ),
    Lifetime(
        "link for the first lead",
        "a newer one is printed",
        _first_lead(lambda world, _: world.lead_link()),
        leads=False,
    ),
    Lifetime("link for the first lead", f"{DAYS:.0f} days pass", _first_lead(_days_after_now), leads=False),
    Lifetime(
        "link for the first lead",
        "there is a lead, however made",
        _first_lead(lambda world, _: people(world.store, "lux", role="lead")),
        leads=False,
    ),
    Lifetime(
        "link for the first lead",
        "it is used",
        _first_lead(lambda world, token: world.accepts(token, "lux")),
        leads=False,
    ),
    Lifetime("session", "the person signs out", _session(lambda _, browser: browser.post("/sign-out"))),
    Lifetime("session", f"{SESSION_HOURS:.0f} hours pass", _session(_later(SESSION_HOURS * 3600 + 1))),
    Lifetime("session", "the account gets a new password", _session(lambda world, _: world.new_password("ann"))),
    Lifetime("session", "the account is paused", _session(lambda world, _: world.status("ann", "paused"))),
    Lifetime("session", "the account is withdrawn", _session(lambda world, _: world.status("ann", "withdrawn"))),
    Lifetime("session", "the lead is paused", _session(lambda world, _: world.status("lea", "paused"), "lea")),
    Lifetime(
        "session",
        "the same browser signs in again",
        _session(lambda _, browser: browser.post("/sign-in", data={"name": "bob", "password": PASSWORD})),
    ),
    Lifetime("session", "another store is served: a comparison that people judge has one of its own", _elsewhere),
    Lifetime(
        "failures of a name",
        f"{WINDOW_SECONDS / 60:.0f} minutes pass",
        _failures("ann", MOST_FAILURES_OF_NAME, "ann"),
    ),
    Lifetime(
        "failures of an address",
        f"{WINDOW_SECONDS / 60:.0f} minutes pass",
        _failures("nobody{}", MOST_FAILURES_OF_ADDRESS, "bob"),
    ),
    Lifetime("failures of a name", "the clock is set back", _clock_set_back("ann", MOST_FAILURES_OF_NAME, "ann")),
    Lifetime(
        "failures of an address",
        "the clock is set back",
        _clock_set_back("nobody{}", MOST_FAILURES_OF_ADDRESS, "bob"),
    ),
    Lifetime("attempt under way", "its password was right", _right_password),
    Lifetime("token of `/metrics`", "the page is started with another one", _metrics("another token, as long")),
    Lifetime("token of `/metrics`", "the page is started with none", _metrics("")),
    Lifetime(
        "item that is kept for a labeler",
        f"{PLAIN.lease_minutes:.0f} minutes pass (`labeling.lease_minutes`)",
        _lease(lambda world, *_: _later(60.0 * PLAIN.lease_minutes + 1)(world)),
    ),
    Lifetime("item that is kept for a labeler", "it is given back", _lease(_given_back)),
    Lifetime(
        "item that is kept for a labeler",
        "the labeler is withdrawn",
        _lease(lambda world, *_: world.status("ann", "withdrawn")),
    ),
    Lifetime("receipt by which a late answer is kept", "it is used: the answer stands", _late(_answered)),
    Lifetime(
        "receipt by which a late answer is kept",
        "the labeler is paused or withdrawn",
        _late(lambda world, *_: world.status("ann", "paused")),
    ),
    Lifetime("campaign", "a lead pauses it, until it is resumed", _campaign("pause")),
    Lifetime("campaign", "a lead ends it, for good", _campaign("end")),
)


def table() -> str:
    """The table as it stands in SECURITY.md."""
    lines = ["| what | ends when |", "|---|---|"]
    return "\n".join(lines + [f"| {one.thing} | {one.ends} |" for one in LIFETIMES])


def written(text: str) -> str:
    """The document with the current table."""
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{table()}\n{END}", text, flags=re.DOTALL)


if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(written(document.read_text(encoding="utf-8")), encoding="utf-8")
