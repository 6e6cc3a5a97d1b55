"""Two transactions at the same moment: the later one sees what the earlier one did."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, select
from tests.labeling.crowd import PLAIN, fill, people

from triphase.labeling.web.sessions import cookie_key
from triphase.labeling.work import accounts, invitations, item_plan
from triphase.labeling.work.conflicts import adjudicate
from triphase.labeling.work.labeler_status import set_status
from triphase.labeling.work.people import AccountError
from triphase.store import Store
from triphase.store.schema import rankings

HELD_SECONDS = 0.4


def one_inside_the_other(
    store: Store, first: Callable[[Connection], Any], second: Callable[[Connection], Any]
) -> Future[Any]:
    """Execute ``second`` in its own transaction while that of ``first``, which has written, is still open."""
    begun = threading.Event()

    def later() -> Any:
        begun.wait()
        with store.transaction() as connection:
            return second(connection)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(later)
        with store.transaction() as connection:
            try:
                first(connection)
            finally:
                begun.set()
            threading.Event().wait(HELD_SECONDS)
        future.exception()
        return future


def test_two_leads_cannot_pause_each_other(store: Store) -> None:
    people(store, "ann", "bob", role="lead")
    outcome = one_inside_the_other(
        store,
        lambda connection: set_status(connection, "ann", "paused", now=1.0, by="bob"),
        lambda connection: set_status(connection, "bob", "paused", now=1.0, by="ann"),
    )
    with pytest.raises(AccountError, match="'bob' is the only active lead"):
        outcome.result()


def test_of_two_decisions_the_later_one_stands_alone(store: Store) -> None:
    fill(store, 1)
    people(store, "ann", "bob", role="lead")
    prompt = next(iter(store.prompts())).id
    responses = [response.id for response in store.responses(prompt)]
    places = [dict(zip(responses, order, strict=False)) for order in ((1, 2), (2, 1))]
    one_inside_the_other(
        store,
        lambda connection: adjudicate(connection, prompt, places[0], "", by="ann", now=1.0),
        lambda connection: adjudicate(connection, prompt, places[1], "", by="bob", now=2.0),
    ).result()
    with store.reading() as connection:
        active = connection.execute(select(rankings.c.labeler).where(rankings.c.status == "active")).scalars().all()
    assert active == ["bob"]


def test_servers_that_start_together_leave_one_link_for_the_first_lead(store: Store) -> None:
    with ThreadPoolExecutor(4) as pool:
        links = list(pool.map(lambda _: link(store), range(4)))
    assert None not in links
    with store.reading() as connection:
        assert len(invitations.open_ones(connection, time.time())) == 1


def test_no_link_for_the_first_lead_is_printed_while_one_becomes_the_lead(store: Store) -> None:
    outcome = one_inside_the_other(
        store,
        lambda connection: accounts.add_account(connection, "lea", "lead", "a hash", now=1.0, by="test"),
        lambda connection: accounts.first_lead(connection, now=2.0),
    )
    assert outcome.result() is None


def test_a_lead_who_is_withdrawn_at_this_moment_invites_nobody(store: Store) -> None:
    people(store, "lea", "lou", role="lead")
    outcome = one_inside_the_other(
        store,
        lambda connection: set_status(connection, "lou", "withdrawn", now=1.0, by="lea"),
        lambda connection: invitations.invite(connection, "lead", now=1.0, by="lou"),
    )
    with pytest.raises(AccountError, match="only an active lead invites"):
        outcome.result()


def test_servers_that_start_together_make_each_item_once_and_one_key(store: Store) -> None:
    fill(store, 3)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: item_plan.make_items(store, PLAIN, seed=0, now=0.0), range(4)))
        keys = set(pool.map(lambda _: one_key(store), range(4)))
    assert sorted(made) == [0, 0, 0, 3]
    assert len(keys) == 1


def link(store: Store) -> str | None:
    with store.transaction() as connection:
        return accounts.first_lead(connection, now=time.time())


def one_key(store: Store) -> str:
    with store.transaction() as connection:
        return cookie_key(connection)
