"""Every invitation, session and counter ends as the table in SECURITY.md states, and not before."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from sqlalchemy import inspect
from tests.labeling.crowd import Clock, people, served
from tests.labeling.web.lifetimes import LIFETIMES, World, written

from triphase.labeling.web.context import ServerSettings
from triphase.store import Store

ROOT = Path(__file__).parents[3]
SECURITY = ROOT / "SECURITY.md"


@pytest.fixture
def world(store: Store, clock: Clock, request: pytest.FixtureRequest) -> Iterator[World]:
    people(store, "ann", "bob")
    if request.param.leads:
        people(store, "lea", "lou", role="lead")
    with served(store, clock=clock) as app:
        yield World(store, app, clock)


@pytest.mark.parametrize(
    ("world", "lifetime"),
    [pytest.param(one, one, id=f"{one.thing}: {one.ends}") for one in LIFETIMES],
    indirect=["world"],
)
def test_it_holds_until_then_and_no_longer(world: World, lifetime: object) -> None:
    holds = lifetime.play(world)  # type: ignore[attr-defined]
    assert holds() is False
    # A clock that goes back brings nothing to life again.
    world.clock.time -= 30 * 86400.0
    if "pass" not in lifetime.ends:  # type: ignore[attr-defined]
        assert holds() is False


def test_the_table_in_the_document_is_current() -> None:
    text = SECURITY.read_text(encoding="utf-8")
    assert written(text) == text, "run: python -m tests.labeling.web.lifetimes SECURITY.md"


def test_no_kind_of_secret_or_counter_is_left_out(store: Store) -> None:
    tables = set(inspect(store.engine).get_table_names())
    known = {"invitations": "invitation", "sessions": "session", "sign_ins": "failures of a name"}
    assert set(known) <= tables
    assert set(known.values()) <= {one.thing for one in LIFETIMES}
    known |= {"assignments": "item that is kept for a labeler", "campaigns": "campaign"}
    assert set(known) <= tables and set(known.values()) <= {one.thing for one in LIFETIMES}
    lasting = {
        name for name in tables if "token_hash" in {one["name"] for one in inspect(store.engine).get_columns(name)}
    }
    assert lasting == {"invitations", "sessions"}


def test_no_kind_of_signed_text_or_configured_token_is_left_out() -> None:
    """What is signed with the key of cookies, and what the page is started with, by how the source calls it."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/triphase/labeling").rglob("*.py"))
    assert set(re.findall(r'salt="([^"]+)"', source)) == {"triphase session", "seat"}
    assert [one.name for one in fields(ServerSettings) if "token" in one.name] == ["metrics_token"]
    things = {one.thing for one in LIFETIMES}
    assert {"session", "receipt by which a late answer is kept", "token of `/metrics`"} <= things
