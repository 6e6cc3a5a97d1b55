"""The lead's pages: statistics, conflicts and their decision, withdrawal, samples, the audit."""

import csv
import io
import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from sqlalchemy import insert, select
from tests.labeling.crowd import PLAIN, Clock, fill, people, prepared, served, signed_in

from triphase.labeling.quality.agreement import Estimate
from triphase.labeling.quality.labeling_statistics import collect, pace
from triphase.labeling.web.charts import intervals
from triphase.labeling.work import item_plan
from triphase.labeling.work.conflicts import conflicts
from triphase.records.types import Message, Prompt, Ranking, Response
from triphase.store import Store
from triphase.store.answers import StoredAnswer
from triphase.store.schema import adjudications, audit, flags

NOW = 1_760_000_000.0


def add(store: Store, prompt: int, labeler: str, order: str, purpose: str = "label") -> None:
    name = f"p{prompt:05d}"
    places = {f"{name}-{response}": place for place, response in enumerate(order, start=1)}
    ranking = Ranking(f"{name} {labeler} {purpose}", name, labeler, places, tuple(sorted(places)), NOW + prompt, 20.0)
    store.add_answers([StoredAnswer(ranking, purpose)])


@pytest.fixture
def app(store: Store, clock: Clock) -> Iterator[FastAPI]:
    prepared(store, PLAIN, 4, "ann", "bob")
    people(store, "lea", role="lead")
    add(store, 0, "ann", "0123")
    add(store, 0, "bob", "3210")
    add(store, 1, "ann", "0123")
    add(store, 1, "bob", "0132")
    add(store, 2, "ann", "01")
    add(store, 2, "bob", "01")
    with served(store, clock=clock) as made:
        yield made


def test_statistics(app: FastAPI, store: Store) -> None:
    statistics = collect(store, NOW)
    assert statistics.rankings == 6 and statistics.overlapping_prompts == 3
    assert statistics.agreement.value.value == pytest.approx((0 + 5 + 1) / 13)
    assert statistics.by_pair["ann", "bob"].value.pairs == 13
    ann = next(one for one in statistics.labelers if one.name == "ann")
    assert ann.answers == 3 and ann.median_seconds == 20 and ann.gold is None and ann.consistency is None
    assert statistics.position.value == pytest.approx((3 + 3 + 1 + 0 + 2 + 1) / 14)


def test_a_decision_through_one_worker_is_seen_through_another(app: FastAPI, store: Store, clock: Clock) -> None:
    with served(store, clock=clock) as other:
        first, second = (signed_in(each, "lea") for each in (app, other))
        before = other.state.context.kept_statistics[None][2].rankings
        assert first.post("/lead/labelers/bob/status", data={"status": "withdrawn"}).status_code == 303
        assert second.get("/lead").status_code == 200
        assert other.state.context.kept_statistics[None][2].rankings == before - 3
        kept = other.state.context.kept_statistics[None]
        signed_in(other, "lea")
        second.get("/lead")
        assert other.state.context.kept_statistics[None] is kept  # a sign-in decides nothing


def test_gold_and_consistency(app: FastAPI, store: Store) -> None:
    with store.transaction() as connection:
        item_plan.add_gold(connection, "p00003", {"p00003-0": 1, "p00003-1": 2}, now=0.0, by="lea")
    add(store, 3, "ann", "01", "gold")
    add(store, 3, "bob", "10", "gold")
    add(store, 0, "ann", "0132", "repeat")
    by_name = {one.name: one for one in collect(store, NOW).labelers}
    assert by_name["ann"].gold.value == 1.0 and by_name["bob"].gold.value == 0.0
    assert by_name["ann"].consistency.value == pytest.approx(5 / 6)


def test_pace_leaves_pauses_out() -> None:
    assert pace([0, 10, 20, 30, 40, 50, 60]) == pytest.approx(0.1)
    assert pace([0, 10, 20, 30, 90_000, 90_010, 90_020]) == pytest.approx(6 / 50)
    assert pace([1, 2, 3]) is None and pace([]) is None


def test_conflicts_and_a_decision(app: FastAPI, store: Store) -> None:
    assert [one.prompt_id for one in conflicts(store)] == ["p00000", "p00001"]
    lea = signed_in(app, "lea")
    assert "p00000" in lea.get("/lead/conflicts").text
    form = {"decision": "rank", "note": "the shorter", "place-0": "2", "place-1": "1"}
    assert lea.post("/lead/prompt?id=p00000", data=form).status_code == 303
    assert lea.post("/lead/prompt?id=p00001", data={"decision": "stand"}).status_code == 303
    assert conflicts(store) == []
    group = store.ranked_groups("train")[0] if store.ranked_groups("train")[0].prompt.id == "p00000" else None
    group = next(one for one in store.ranked_groups("train") if one.prompt.id == "p00000")
    decided = {(pair.first, pair.second): pair.target for pair in group.pairs}
    assert decided[1, 0] == 1.0 and decided[0, 2] == 0.5
    assert lea.post("/lead/prompt?id=p00000", data={**form, "place-0": "1", "place-1": "2"}).status_code == 303
    group = next(one for one in store.ranked_groups("train") if one.prompt.id == "p00000")
    assert {(pair.first, pair.second): pair.target for pair in group.pairs}[0, 1] == 1.0
    with store.reading() as connection:
        assert len(connection.execute(select(adjudications)).all()) == 3
    assert sum(one.status == "superseded" for one in store.answers(counted=False)) == 1
    page = lea.get("/lead/prompt?id=p00000").text
    assert "the shorter" in page and "adjudication" in page


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"decision": "rank", "place-0": "1"}, "at least two responses"),
        ({"decision": "gold", "place-0": "1"}, "at least two responses"),
        ({"decision": "gold"}, "at least two responses"),
        ({"decision": "maybe"}, "is not a decision"),
        ({}, "is not a decision"),
    ],
)
def test_decisions_that_are_none(app: FastAPI, store: Store, form: dict[str, str], message: str) -> None:
    before = store.answers(counted=False)
    answer = signed_in(app, "lea").post("/lead/prompt?id=p00000", data=form)
    assert answer.status_code == 422 and message in answer.text
    assert store.answers(counted=False) == before
    assert signed_in(app, "lea").get("/lead/prompt?id=nowhere").status_code == 404


def test_a_gold_answer_by_the_lead(app: FastAPI, store: Store) -> None:
    lea = signed_in(app, "lea")
    form = {"decision": "gold", "place-0": "1", "place-1": "2"}
    assert lea.post("/lead/prompt?id=p00003", data=form).status_code == 303
    assert "gold" in lea.get("/lead/prompt?id=p00003").text
    assert "p00003" in lea.get("/lead/samples?state=gold").text


def test_withdrawing_takes_the_rankings_out_and_back(app: FastAPI, store: Store) -> None:
    lea = signed_in(app, "lea")
    assert lea.post("/lead/labelers/bob/status", data={"status": "withdrawn"}).status_code == 303
    assert {one.labeler for one in store.rankings()} == {"ann"}
    assert "withdrawn" in lea.get("/lead/labelers").text
    assert len(store.answers(counted=False)) == 6
    lea.post("/lead/labelers/bob/status", data={"status": "active"})
    assert len(store.rankings()) == 6
    for name, status in (("nobody", "paused"), ("bob", "banished"), ("lea", "paused")):
        assert lea.post(f"/lead/labelers/{name}/status", data={"status": status}).status_code == 422
    with store.reading() as connection:
        actions = connection.execute(select(audit.c.action).where(audit.c.subject == "bob")).scalars().all()
    assert actions.count("status changed") == 2


def test_samples_filter(app: FastAPI, store: Store) -> None:
    lea = signed_in(app, "lea")
    for query, count in (("", 4), ("text=thing+2", 1), ("text=%25", 0), ("state=ranked", 3), ("state=not+ranked", 1),
                         ("labeler=bob", 3), ("model=model-3", 4), ("split=heldout", 0), ("page=9", 4)):  # fmt: skip
        said = "1 prompt" if count == 1 else f"{count} prompts"
        assert f'<span class="hint">{said}</span>' in lea.get(f"/lead/samples?{query}").text, query
    assert lea.get("/lead/samples?page=-1").status_code == 422


def test_one_labeler_over_time(app: FastAPI, store: Store) -> None:
    lea = signed_in(app, "lea")
    assert lea.get("/lead/labelers/nobody").status_code == 404
    assert "No answers yet" in lea.get("/lead/labelers/lea").text
    names = {answer.ranking.labeler for answer in store.answers()} - {"lea"}
    assert names
    for name in names:
        assert f'href="/lead/labelers/{name}"' in lea.get("/lead/labelers").text
        page = lea.get(f"/lead/labelers/{name}").text
        answers = sum(
            answer.ranking.labeler == name and answer.status == "active" for answer in store.answers(counted=False)
        )
        assert f"<td>{answers}</td>" in page and "Day (UTC)" in page


def test_downloads(app: FastAPI) -> None:
    lea = signed_in(app, "lea")
    for name in ("comparisons", "rankings"):
        answer = lea.get(f"/lead/export/{name}?form=csv")
        assert answer.headers["content-type"].startswith("text/csv") and ".csv" in answer.headers["content-disposition"]
        assert len(list(csv.DictReader(io.StringIO(answer.text)))) == len(
            lea.get(f"/lead/export/{name}").text.splitlines()
        )
    for name in ("comparisons", "rankings", "store"):
        answer = lea.get(f"/lead/export/{name}")
        assert answer.status_code == 200 and "attachment" in answer.headers["content-disposition"]
        assert len(answer.text.splitlines()) > 5
    assert lea.get("/lead/export/secrets").status_code == 404


def test_flags_are_closed_with_a_word(app: FastAPI) -> None:
    ann, lea = signed_in(app, "ann"), signed_in(app, "lea")
    item = ann.get("/api/next").json()["item"]
    ann.post("/api/flags", json={"assignment": item["assignment"], "reason": "broken", "note": "half a word"})
    assert "half a word" in lea.get("/lead/flags").text
    lea.post("/lead/flags/1", data={"resolution": "sampled anew"})
    assert "half a word" not in lea.get("/lead/flags").text
    assert "sampled anew" in lea.get("/lead/flags?state=all").text
    assert "flag resolved" in lea.get("/lead/audit").text


def test_ordering_by_scores_from_the_page(app: FastAPI, store: Store) -> None:
    lea = signed_in(app, "lea")
    assert "/lead/order" not in lea.get("/lead").text and "triphase label score" in lea.get("/lead").text
    refused = lea.post("/lead/order")
    assert refused.status_code == 422 and "The store has no scores" in refused.text
    store.add_scores("rm", {one.id: 0.0 for one in store.responses()})
    answer = lea.post("/lead/order")
    assert answer.status_code == 303 and answer.headers["location"] == "/lead?ordered=4", "one was begun"
    assert "4 waiting items ordered by the scores" in lea.get(answer.headers["location"]).text


def test_every_page_of_an_empty_store_opens(store: Store, clock: Clock) -> None:
    people(store, "lea", role="lead")
    with served(store, clock=clock) as app:
        lea = signed_in(app, "lea")
        for path in ("", "/labelers", "/conflicts", "/flags", "/samples", "/guidelines", "/audit"):
            assert lea.get(f"/lead{path}").status_code == 200, path


def test_a_lead_ranks_and_their_answer_counts_as_anyones(app: FastAPI, store: Store) -> None:
    lea = signed_in(app, "lea")
    assert lea.get("/rank").status_code == 200 and 'href="/lead"' in lea.get("/rank").text
    before = len([one for one in store.answers() if one.ranking.labeler == "lea"])
    item = lea.get("/api/next").json()["item"]
    places = list(range(1, len(item["responses"]) + 1))
    body = {"assignment": item["assignment"], "receipt": item["receipt"], "places": places, "seconds": 3.0}
    assert lea.post("/api/answers", json=body).json()["status"] == "active"
    assert len([one for one in store.answers() if one.ranking.labeler == "lea"]) == before + 1
    assert 'href="/rank"' in lea.get("/lead").text
    assert "lea" in lea.get("/lead/labelers").text


def test_the_first_steps_stand_until_they_are_done(store: Store, clock: Clock) -> None:
    people(store, "lea", role="lead")
    with served(store, clock=clock) as app:
        lea = signed_in(app, "lea")

        def steps() -> list[str]:
            return re.findall(r'<li class="(done|open)">', lea.get("/lead").text)

        assert steps() == ["open"] * 4 and "At a glance" not in lea.get("/lead").text
        form = {"csrf": lea.headers["x-csrf-token"]}
        lea.post("/lead/guidelines", data={**form, "text": "be kind"})
        assert steps() == ["done", "open", "open", "open"]
        fill(store, 2)
        item_plan.make_items(store, PLAIN, seed=0, now=0.0)
        lea.post("/lead/invitations", data={**form, "role": "labeler"})
        assert steps() == ["done", "done", "done", "open"]
        item = lea.get("/api/next").json()["item"]
        body = {"assignment": item["assignment"], "receipt": item["receipt"], "places": [1] * len(item["responses"])}
        assert lea.post("/api/answers", json={**body, "seconds": 1.0}).status_code == 200
        app.state.context.kept_statistics.clear()
        assert steps() == [] and "At a glance" in lea.get("/lead").text


def test_lists_show_what_is_asked_and_not_ids(app: FastAPI, store: Store) -> None:
    lea, ann = signed_in(app, "lea"), signed_in(app, "ann")
    store.add_prompts(
        [Prompt("id-of-x", (Message("user", "first"), Message("user", "<b>who</b>\nasks? " + "x" * 300)))]
    )
    store.add_responses([Response(f"x{k}", "id-of-x", f"text {k}", "sft") for k in range(2)])
    with store.transaction() as connection:
        row = {"prompt_id": "id-of-x", "labeler": "ann", "reason": "unclear", "note": "", "created_at": 0.0}
        connection.execute(insert(flags), row)
    assert ann.get("/rank").status_code == 200
    shown = lea.get("/lead/flags").text
    assert "&lt;b&gt;who&lt;/b&gt; asks? xxx" in shown and "<b>who" not in shown and 'title="id-of-x"' in shown
    assert "x" * 100 not in shown


def test_the_matrix_names_its_columns_and_counts_its_pairs(app: FastAPI) -> None:
    svg = re.search(
        r"<svg.*?</svg>", signed_in(app, "lea").get("/lead").text.partition("Agreement between each")[2], re.S
    )[0]
    assert [svg.count(f">{name}</text>") for name in ("ann", "bob")] == [2, 2]  # a row and a column of each
    assert svg.count(">n 13</text>") == 2
    assert (
        len(re.findall(r">\d+–\d+</text>", svg)) == 2
        and len(re.findall(r"\d+ % to|, \d+ to \d+ %, 13 pairs", svg)) == 2
    )


def test_lists_refresh_by_themselves_outside_of_the_forms(app: FastAPI) -> None:
    ann, lea = signed_in(app, "ann"), signed_in(app, "lea")
    item = ann.get("/api/next").json()["item"]
    ann.post("/api/flags", json={"assignment": item["assignment"], "reason": "broken", "note": "half a word"})
    for path, word in (("conflicts", "without a decision"), ("flags", "half a word"), ("campaigns", "A campaign is")):
        html = lea.get(f"/lead/{path}").text
        live = re.search(r"<div data-live>(.*?)\n</div>\n", html, re.DOTALL)
        assert live and word in live[1] and "/static/live.js" in html, path
        assert 'name="text"' not in live[1] and html.count("data-live") == 1, path
        assert all(
            ' tabindex="0" role="region" aria-label="' in box for box in re.findall('<div class="scroll"[^>]*>', html)
        )


def test_a_long_name_fits_its_column_and_stands_under_the_pointer() -> None:
    name = "a-name-that-is-longer-than-its-column"
    drawn = intervals([(name, Estimate(0.5, 0.4, 0.6, 10, 10))], "Agreement")
    assert f">a-name-that-i…<title>{name}</title></text>" in drawn
