"""The JSON routes: the flow of an item, corrections, skips, flags, drafts, lateness, and bad input."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, example, given, settings
from sqlalchemy import select
from tests.labeling.crowd import PLAIN, Clock, people, prepared, served, signed_in
from tests.labeling.from_schema import requests

from triphase.errors import StoreError
from triphase.labeling.exchange.exporting import export_rows
from triphase.store import Store, open_store
from triphase.store.schema import audit, flags, guidelines


@pytest.fixture
def app(store: Store, clock: Clock) -> Iterator[FastAPI]:
    prepared(store, PLAIN, 6, "ann", "bob")
    people(store, "lea", role="lead")
    with served(store, clock=clock) as made:
        yield made


def body(item: dict, places: list[int | None] | None = None, **more: object) -> dict:
    return {"assignment": item["assignment"], "receipt": item["receipt"], "places": places or [2, 1, 3, 3], **more}


def test_an_answer_is_kept_with_all_that_was_said(app: FastAPI, store: Store, clock: Clock) -> None:
    lea, ann = signed_in(app, "lea"), signed_in(app, "ann")
    lea.post("/lead/guidelines", data={"text": "Prefer **short** ones."})
    item = ann.get("/api/next").json()["item"]
    clock.time += 40
    sent = body(item, [2, 1, None, 3], seconds=31.5, strength=3, quality=[5, 7, None, 1], note="hm")
    answer = ann.post("/api/answers", json=sent).json()
    assert answer["status"] == "active" and answer["item"]["assignment"] != item["assignment"]
    (kept,) = store.answers()
    shown = kept.ranking.order_shown
    assert dict(kept.ranking.places) == {shown[0]: 2, shown[1]: 1, shown[3]: 3}
    assert dict(kept.quality) == {shown[0]: 5, shown[1]: 7, shown[3]: 1}
    assert (kept.strength, kept.guideline_version, kept.ranking.note, kept.ranking.seconds) == (3, 1, "hm", 31.5)
    assert kept.ranking.submitted_at == clock.time


def test_sending_again_is_taken_once(app: FastAPI, store: Store) -> None:
    ann = signed_in(app, "ann")
    item = ann.get("/api/next").json()["item"]
    replies = [ann.post("/api/answers", json=body(item)).json() for _ in range(3)]
    assert len({reply["ranking"] for reply in replies}) == 1
    assert len({reply["item"]["assignment"] for reply in replies}) == 1
    assert len(store.answers(counted=False)) == 1


def test_time_on_task_is_no_longer_than_the_lease(app: FastAPI, store: Store, clock: Clock) -> None:
    ann = signed_in(app, "ann")
    item = ann.get("/api/next").json()["item"]
    clock.time += 10
    ann.post("/api/answers", json=body(item, seconds=9999))
    assert store.rankings()[0].seconds == 12


def test_a_correction_replaces_and_both_stay(app: FastAPI, store: Store) -> None:
    ann = signed_in(app, "ann")
    first = ann.get("/api/next").json()["item"]
    second = ann.post("/api/answers", json=body(first, [1, 2, 3, 4])).json()["item"]
    old = ann.get("/api/history").json()["answer"]
    assert old["places"] == [1, 2, 3, 4] and [one["text"] for one in old["responses"]] == [
        one["text"] for one in first["responses"]
    ]
    sent = {"corrects": old["ranking"], "places": [4, 3, 2, 1]}
    replies = [ann.post("/api/answers", json=sent).json() for _ in range(2)]
    assert replies[0]["ranking"] == replies[1]["ranking"] != old["ranking"]
    assert replies[0]["item"]["assignment"] == second["assignment"], "the item at hand is still there"
    (kept,) = store.rankings()
    assert [kept.places[one] for one in kept.order_shown] == [4, 3, 2, 1]
    assert sorted(one.status for one in store.answers(counted=False)) == ["active", "superseded"]
    with store.reading() as connection:
        assert "answer corrected" in connection.execute(select(audit.c.action)).scalars().all()
    assert ann.post("/api/answers", json={"corrects": old["ranking"], "places": [1, 1, 1, 1]}).status_code == 409
    assert ann.get("/api/history?back=1").json()["answer"] is None
    stranger = signed_in(app, "bob").post("/api/answers", json={"corrects": kept.id, "places": [1, 2, 3, 4]})
    assert stranger.status_code == 422 and "not yours" in stranger.json()["message"]


def test_a_late_answer_is_kept_beside(app: FastAPI, store: Store, clock: Clock) -> None:
    ann, bob = signed_in(app, "ann"), signed_in(app, "bob")
    late = ann.get("/api/next").json()["item"]
    clock.time += 21 * 60
    taken = bob.get("/api/next").json()["item"]
    assert taken["assignment"] == late["assignment"]
    reply = ann.post("/api/answers", json=body(late, [1, 2, 3, 4]))
    assert reply.status_code == 200 and reply.json()["status"] == "late"
    assert reply.json()["item"]["assignment"] != late["assignment"]
    assert ann.post("/api/answers", json=body(late, [1, 2, 3, 4])).json()["status"] == "late"
    bob.post("/api/answers", json=body(taken))
    assert [one.labeler for one in store.rankings()] == ["bob"]
    (kept,) = [one for one in store.answers(counted=False) if one.status == "late"]
    assert [kept.ranking.places[one] for one in kept.ranking.order_shown] == [1, 2, 3, 4]


def test_an_expired_lease_that_nobody_took_is_still_good(app: FastAPI, clock: Clock) -> None:
    ann = signed_in(app, "ann")
    item = ann.get("/api/next").json()["item"]
    clock.time += 3600
    assert ann.post("/api/answers", json=body(item)).json()["status"] == "active"


def test_a_strangers_slot_is_refused(app: FastAPI, store: Store) -> None:
    ann, bob = signed_in(app, "ann"), signed_in(app, "bob")
    item = ann.get("/api/next").json()["item"]
    for sent in (body(item), {**body(item), "receipt": ""}, {**body(item), "receipt": item["receipt"][:-2] + "xx"}):
        answer = bob.post("/api/answers", json=sent)
        assert answer.status_code == 409 and "take the next one" in answer.json()["message"]
    assert bob.post("/api/flags", json={"assignment": item["assignment"], "reason": "unsafe"}).status_code == 409
    assert bob.post("/api/skips", json={"assignment": item["assignment"], "reason": "other"}).status_code == 409
    assert bob.put("/api/drafts", json={"assignment": item["assignment"], "places": [1]}).json() == {"kept": False}
    assert bob.post("/api/answers", json={**body(item), "assignment": 10**6}).status_code == 409
    assert store.answers(counted=False) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"places": [1, 2, 3]}, "3 places for 4 responses"),
        ({"places": [1, 2, 3, 9]}, "places go from 1 to 4"),
        ({"places": [1, 2, 3, 0]}, "places.3"),
        ({"places": [None] * 4}, "rank at least two"),
        ({"places": [1, None, None, None]}, "only one response is ranked"),
        ({"quality": [1]}, "1 qualities for 4 responses"),
        ({"quality": [8, 1, 1, 1]}, "quality.0"),
        ({"strength": 5}, "strength"),
        ({"seconds": -1}, "seconds"),
        ({"mischief": 1}, "mischief"),
        ({"assignment": 0}, "assignment"),
        ({"assignment": 2**63}, "assignment"),
        ({"assignment": None}, "name the assignment"),
    ],
)
def test_bad_answers_get_a_message(app: FastAPI, store: Store, change: dict, message: str) -> None:
    ann = signed_in(app, "ann")
    answer = ann.post("/api/answers", json={**body(ann.get("/api/next").json()["item"]), **change})
    assert answer.status_code == 422 and message in answer.json()["message"]
    assert store.answers(counted=False) == []


def test_drafts_come_back(app: FastAPI) -> None:
    ann = signed_in(app, "ann")
    item = ann.get("/api/next").json()["item"]
    assert item["draft"] is None
    for places in ([1, None, None, None], [1, 2, None, None]):
        sent = {"assignment": item["assignment"], "places": places, "note": "so far", "seconds": 8.0}
        assert ann.put("/api/drafts", json=sent).json() == {"kept": True}
    again = signed_in(app, "ann").get("/api/next").json()["item"]
    assert again["assignment"] == item["assignment"]
    assert again["draft"] == {
        "places": [1, 2, None, None],
        "note": "so far",
        "seconds": 8.0,
        "quality": [],
        "strength": None,
        "inserting": None,
        "ratings": {},
        "rationale": "",
        "rewrites": [],
    }


def test_flags_and_skips(app: FastAPI, store: Store) -> None:
    ann = signed_in(app, "ann")
    item = ann.get("/api/next").json()["item"]
    flag = {"assignment": item["assignment"], "position": 1, "reason": "personal data", "note": "a name"}
    assert ann.post("/api/flags", json=flag).status_code == 200
    assert ann.post("/api/flags", json={**flag, "position": 7}).status_code == 422
    assert ann.post("/api/flags", json={**flag, "reason": "boring"}).status_code == 422
    assert ann.post("/api/skips", json={"assignment": item["assignment"], "reason": "bored"}).status_code == 422
    skipped = {"assignment": item["assignment"], "reason": "not my field", "note": "law"}
    replies = [ann.post("/api/skips", json=skipped).json()["item"]["assignment"] for _ in range(2)]
    assert replies[0] == replies[1] != item["assignment"]
    (kept,) = store.answers(counted=False)
    assert (kept.status, kept.skip_reason, kept.ranking.note) == ("skipped", "not my field", "law")
    with store.reading() as connection:
        row = connection.execute(select(flags)).one()
    assert row.response_id == kept.ranking.order_shown[1] and row.note == "a name"
    page = signed_in(app, "lea").get("/lead/flags").text
    assert "personal data" in page and "a name" in page


def test_progress_counts(app: FastAPI, clock: Clock) -> None:
    ann = signed_in(app, "ann")
    item = ann.get("/api/next").json()["item"]
    for seconds in (10, 30, 20):
        clock.time += 60
        item = ann.post("/api/answers", json=body(item, seconds=seconds)).json()["item"]
    assert ann.get("/api/progress").json() == {"done": 3, "today": 3, "left": 2, "median_seconds": 20.0}
    clock.time += 86400
    assert signed_in(app, "ann").get("/api/progress").json()["today"] == 0


def test_nothing_left(app: FastAPI) -> None:
    ann = signed_in(app, "ann")
    item = ann.get("/api/next").json()["item"]
    for _ in range(6):
        item = ann.post("/api/answers", json=body(item)).json()["item"]
    assert item is None and ann.get("/api/next").json() == {"item": None}


def test_a_store_that_is_away_says_so(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = signed_in(app, "ann")

    def away(*_: object) -> None:
        raise StoreError("the store cannot be reached")

    monkeypatch.setattr("triphase.labeling.web.sessions.find", away)
    answer = ann.get("/api/next")
    assert answer.status_code == 503 and "Nothing is lost" in answer.json()["message"]
    assert ann.get("/rank").status_code == 503


def test_a_store_that_another_program_locks_says_so(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("triphase.store.database.BUSY_SECONDS", 0.05)
    with open_store(tmp_path) as store:
        prepared(store, PLAIN, 2, "ann")
        with served(store, clock=clock) as app:
            ann = signed_in(app, "ann")
            item = ann.get("/api/next").json()["item"]
            other = sqlite3.connect(tmp_path / "labels.sqlite", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            answer = ann.post("/api/answers", json=body(item))
            assert answer.status_code == 503
            assert "Nothing is lost: try again" in answer.json()["message"]
            assert str(tmp_path) not in answer.text and "is locked by another program" in caplog.text
            other.execute("ROLLBACK")
            other.close()
            assert ann.post("/api/answers", json=body(item)).json()["status"] == "active"


def test_no_request_breaks_the_json_api(app: FastAPI) -> None:
    """Requests that the application's own description allows, and near misses, get an answer and never a 500."""
    ann = signed_in(app, "ann")
    item = ann.get("/api/next").json()["item"]
    taken = ann.post("/api/answers", json=body(item)).json()
    known = {
        "assignment": [item["assignment"], taken["item"]["assignment"]],
        "places": [[1, 2, 3, 4], [1, 1, None, 4]],
        "corrects": [taken["ranking"]],
        "receipt": [item["receipt"], taken["item"]["receipt"]],
        "reason": ["unsafe", "not my field", "other"],
        "position": [0, 3, 8],
    }
    met: Counter[tuple[str, str, int]] = Counter()

    correction = {"places": [1, 2, 3, 4], "corrects": taken["ranking"]}

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(requests(app.openapi(), known))
    @example(("POST", "/api/answers", {}, correction))  # random bodies are accepted in most runs, not in all
    def never_five_hundred(made: tuple[str, str, dict, object]) -> None:
        method, path, query, content = made
        raw = None if content is None else json.dumps(content).encode("utf-8", "surrogatepass")
        answer = ann.request(
            method, path, params=query, content=raw, headers={"content-type": "application/json"} if raw else {}
        )
        assert answer.status_code in (200, 409, 422), (made, answer.text)
        met[method, path, answer.status_code] += 1

    never_five_hundred()
    described = {
        (method.upper(), path)
        for path, methods in app.openapi()["paths"].items() if path.startswith("/api/") for method in methods
    }  # fmt: skip
    assert {(method, path) for method, path, _ in met} == described
    assert {(method, path) for method, path, status in met if status == 200} == described, "some were never let in"


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
@pytest.mark.parametrize("field", ["assignment", "seconds", "strength", "places"])
def test_a_number_beyond_all_numbers_is_refused(app: FastAPI, field: str, number: str) -> None:
    """What a browser cannot send, and a program can."""
    client = signed_in(app, "ann")
    item = client.get("/api/next").json()["item"]
    body = {"assignment": item["assignment"], "places": [1, 2, 3, 4][: len(item["responses"])], field: "NUMBER"}
    content = json.dumps(body).replace('"NUMBER"', number)
    answer = client.post("/api/answers", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["message"].startswith(f"That could not be read: {field}: ")
    assert client.get("/api/next").json()["item"]["assignment"] == item["assignment"], "the item is still to be ranked"


def test_guideline_versions_only_grow(app: FastAPI, store: Store) -> None:
    lea = signed_in(app, "lea")
    for text in ("one", "two"):
        lea.post("/lead/guidelines", data={"text": text})
    with store.reading() as connection:
        rows = connection.execute(select(guidelines.c.version, guidelines.c.text).order_by(guidelines.c.version)).all()
    assert [tuple(row) for row in rows] == [(1, "one"), (2, "two")]
    assert "two" in signed_in(app, "ann").get("/rank").text


def test_every_response_may_be_rewritten_in_any_script(store: Store, clock: Clock) -> None:
    prepared(store, PLAIN, 1, "ann")
    rewrites = ["語" * 20_000] * 4  # 240 kB; without rewritten responses no request is longer than 64 here
    for asked, status in ((False, 413), (True, 200)):
        with served(store, clock=clock, settings=PLAIN.model_copy(update={"ask_rewrite": asked})) as app:
            ann = signed_in(app, "ann")
            item = ann.get("/api/next").json()["item"]
            draft = {"assignment": item["assignment"], "places": [None] * 4, "rewrites": rewrites}
            assert ann.put("/api/drafts", json=draft).status_code == status
            given = body(item, [1, 2, 3, 4], rewrites=rewrites)
            assert ann.post("/api/answers", json=given).status_code == status
            assert ann.post("/api/skips", content=b" " * 200_000).status_code == 413
    (kept,) = store.answers()
    assert len(kept.rewrites) == 4


def test_ratings_rationale_and_rewrites_are_kept_and_become_demonstrations(store: Store, clock: Clock) -> None:
    asking = PLAIN.model_copy(update={"criteria": ("helpful", "honest"), "ask_rationale": True, "ask_rewrite": True})
    prepared(store, asking, 1, "ann")
    with served(store, clock=clock, settings=asking) as app:
        ann = signed_in(app, "ann")
        item = ann.get("/api/next").json()["item"]
        texts = [one["text"] for one in item["responses"]]
        said = {
            "ratings": {"helpful": [7, None, 1, 2], "honest": [None] * 4},
            "rationale": "shorter, and true",
            "rewrites": [None, "As it should be.", None, None],
        }
        for wrong, why in (
            ({"ratings": {"tall": [1, 1, 1, 1]}}, "'tall' is not a criterion"),
            ({"ratings": {"helpful": [1]}}, "1 helpful for 4 responses"),
            ({"ratings": {"helpful": [9, 1, 1, 1]}}, "helpful"),
            ({"rewrites": ["a"]}, "1 rewrites for 4 responses"),
            ({"rationale": "x" * 2001}, "rationale"),
        ):
            refused = ann.post("/api/answers", json={**body(item, [1, 2, 3, 4]), **wrong})
            assert refused.status_code == 422 and why in refused.json()["message"], wrong
        for _ in range(2):  # the second time it is the same answer
            assert ann.post("/api/answers", json={**body(item, [1, 2, 3, 4]), **said}).status_code == 200
        other = {**body(item, [1, 2, 3, 4]), **said, "rationale": "longer"}
        assert ann.post("/api/answers", json=other).status_code == 409
        (kept,) = store.answers()
        shown = kept.ranking.order_shown
        assert kept.ratings == {"helpful": {shown[0]: 7, shown[2]: 1, shown[3]: 2}}
        assert kept.rationale == said["rationale"] and kept.rewrites == {shown[1]: "As it should be."}
        again = ann.get("/api/history").json()["answer"]
        assert again["ratings"]["helpful"] == said["ratings"]["helpful"] and again["rewrites"] == said["rewrites"]
        assert [one["text"] for one in again["responses"]] == texts
    (row,) = export_rows(store, "demonstrations")
    assert row["messages"][-1] == {"role": "assistant", "content": "As it should be."} and row["labeler"] == "ann"
    assert row["response_id"] == shown[1] and row["messages"][0]["role"] == "user"
