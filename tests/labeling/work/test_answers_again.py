"""A second answer to one slot, and JSON of another type: what is acknowledged is what is kept."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from tests.labeling.crowd import PLAIN, Clock, prepared, served, signed_in

from triphase.labeling.work import labeler_status
from triphase.store import Store


@pytest.fixture
def app(store: Store, clock: Clock) -> Iterator[FastAPI]:
    prepared(store, PLAIN, 6, "ann", "bob")
    with served(store, clock=clock) as app:
        yield app


def body(item: dict, places: list | None = None, **more: object) -> dict:
    places = places or [1, 2, 3, 4]
    return {"assignment": item["assignment"], "places": places, "receipt": item["receipt"], **more}


OTHERWISE = [
    {"places": [4, 3, 2, 1]},
    {"strength": 2},
    {"quality": [7, None, None, None]},
    {"note": "on second thoughts"},
]


@pytest.mark.parametrize("other", OTHERWISE)
def test_another_answer_to_one_slot_is_refused(app: FastAPI, store: Store, clock: Clock, other: dict) -> None:
    ann = signed_in(app, "ann")
    item = ann.get("/api/next").json()["item"]
    first = ann.post("/api/answers", json=body(item, seconds=3)).json()
    clock.time += 5
    refused = ann.post("/api/answers", json={**body(item), **other})
    assert refused.status_code == 409 and "press U to open that answer" in refused.json()["message"]
    again = ann.post("/api/answers", json=body(item, seconds=9))
    assert again.json()["ranking"] == first["ranking"], "the same answer, however long it took, is a retry"
    assert len(store.answers(counted=False)) == 1


def test_a_retry_after_a_correction_changes_nothing(app: FastAPI, store: Store) -> None:
    ann = signed_in(app, "ann")
    item = ann.get("/api/next").json()["item"]
    first = ann.post("/api/answers", json=body(item)).json()["ranking"]
    corrected = {"corrects": first, "places": [2, 1, 3, 4], "note": "so"}
    newest = ann.post("/api/answers", json=corrected).json()["ranking"]
    assert ann.post("/api/answers", json=body(item)).json()["ranking"] == first
    assert ann.post("/api/answers", json=corrected).json()["ranking"] == newest
    assert ann.post("/api/answers", json={**corrected, "note": "otherwise"}).status_code == 409
    assert ann.post("/api/answers", json=body(item, [4, 3, 2, 1])).status_code == 409
    assert [one.places[one.order_shown[0]] for one in store.rankings()] == [2]


def test_another_late_answer_is_refused(app: FastAPI, store: Store, clock: Clock) -> None:
    ann, bob = signed_in(app, "ann"), signed_in(app, "bob")
    held = [ann.get("/api/next").json()["item"]]
    clock.time += 60 * PLAIN.lease_minutes + 1
    while held[0]["assignment"] != (theirs := bob.get("/api/next").json()["item"])["assignment"]:
        bob.post("/api/answers", json=body(theirs))
    assert ann.post("/api/answers", json=body(held[0])).json()["status"] == "late"
    assert ann.post("/api/answers", json=body(held[0])).json()["status"] == "late"
    assert ann.post("/api/answers", json=body(held[0], [4, 3, 2, 1])).status_code == 409
    assert sum(one.status == "late" for one in store.answers(counted=False)) == 1


def test_a_retry_after_one_was_taken_back_is_taken_once(app: FastAPI, store: Store, clock: Clock) -> None:
    ann = signed_in(app, "ann")
    item = ann.get("/api/next").json()["item"]
    ann.post("/api/answers", json=body(item))
    for status in ("withdrawn", "active"):
        with store.transaction() as connection:
            labeler_status.set_status(connection, "ann", status, now=clock.time, by="lead")
    ann = signed_in(app, "ann")
    before = len(store.answers(counted=False))
    for _ in range(2):
        clock.time += 1
        assert ann.post("/api/answers", json=body(item)).status_code == 200
    assert len(store.answers(counted=False)) == before


def test_another_skip_is_refused(app: FastAPI) -> None:
    ann = signed_in(app, "ann")
    item = ann.get("/api/next").json()["item"]
    skip = {"assignment": item["assignment"], "reason": "all alike"}
    assert ann.post("/api/skips", json=skip).status_code == 200
    assert ann.post("/api/skips", json=skip).status_code == 200
    for other in ({"reason": "other"}, {"note": "hm"}):
        refused = ann.post("/api/skips", json={**skip, **other})
        assert refused.status_code == 409 and "(all alike), and that is final" in refused.json()["message"]


NUMBERS = {
    "answers": ("assignment", "strength", "places", "quality"),
    "skips": ("assignment",),
    "flags": ("assignment", "position"),
    "drafts": ("assignment", "places", "strength"),
}


@pytest.mark.parametrize("route", NUMBERS)
def test_nothing_is_turned_into_a_number(app: FastAPI, route: str) -> None:
    ann = signed_in(app, "ann")
    item = ann.get("/api/next").json()["item"]
    good = {
        "answers": body(item, strength=1, quality=[1, 2, 3, 4]),
        "skips": {"assignment": item["assignment"], "reason": "other"},
        "flags": {"assignment": item["assignment"], "position": 1, "reason": "unsafe"},
        "drafts": {"assignment": item["assignment"], "places": [1, 2, 3, 4], "strength": 1},
    }[route]
    send = ann.put if route == "drafts" else ann.post
    for field in NUMBERS[route]:
        for wrong in (True, "1", 1.0, [1], {"a": 1}):
            bad = [wrong, 2, 3, 4] if field in ("places", "quality") else wrong
            assert send(f"/api/{route}", json={**good, field: bad}).status_code == 422, (field, wrong)
    assert send(f"/api/{route}", json=good).status_code == 200


@pytest.mark.parametrize(
    ("field", "wrong"), [("next", 1), ("next", "yes"), ("note", 5), ("seconds", True), ("seconds", "3"), ("receipt", 1)]
)
def test_nothing_is_turned_into_another_type(app: FastAPI, field: str, wrong: object) -> None:
    ann = signed_in(app, "ann")
    item = ann.get("/api/next").json()["item"]
    assert ann.post("/api/answers", json=body(item) | {field: wrong}).status_code == 422
    assert ann.post("/api/answers", json=body(item, seconds=3)).status_code == 200, "a whole number of seconds is one"
