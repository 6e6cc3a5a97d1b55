"""Two transactions at the same moment: the later one sees what the earlier one did."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, select
from tests.labeling.crowd import fill, people

from triphase.labeling.work.conflicts import adjudicate
from triphase.labeling.work.labeler_status import set_status
from triphase.labeling.work.people import AccountError
from triphase.store import Store
from triphase.store.schema import rankings

HELD_SECONDS = 0.4


def one_inside_the_other(
    store: Store, first: Callable[[Connection], Any], second: Callable[[Connection], Any]
) -> Future[Any]:
    """Do ``second`` in a transaction of its own while that of ``first``, which has done its work, is still open."""
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
