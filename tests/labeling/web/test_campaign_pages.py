"""The lead's pages about campaigns, what labelers get of them, and every table of the lead's pages as a file."""

import csv
import io
import json
import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from sqlalchemy import insert, select
from starlette.testclient import TestClient
from tests.labeling.crowd import PLAIN, Clock, people, prepared, served, signed_in

from triphase.labeling.web.tables_download import TABLES
from triphase.labeling.work import audit
from triphase.records.types import Ranking
from triphase.store import Store
from triphase.store.answers import StoredAnswer
from triphase.store.schema import campaigns, flags

FORM = {"task": "rating", "share": "100", "overlap": "2", "text": "Rate *kindness*.", "models": ["model-0", "model-2"]}


@pytest.fixture
def app(store: Store, clock: Clock) -> Iterator[FastAPI]:
    prepared(store, PLAIN, 5, "ann", "bob")
    people(store, "lea", role="lead")
    with served(store, clock=clock) as made:
        yield made


def begin(lea: TestClient, name: str = "kindness", **given: object) -> str:
    answer = lea.post("/lead/campaigns", data={"name": name, **FORM, **given})
    assert answer.status_code == 303, re.findall('problem" role="alert">([^<]*)', answer.text)
    return str(answer.headers["location"])


def rate(browser: TestClient, ratings: list[int]) -> dict[str, object]:
    item = browser.get("/api/next").json()["item"]
    places = [1 + sum(other > one for other in ratings) for one in ratings]
    body = {"assignment": item["assignment"], "places": places, "quality": ratings, "receipt": item["receipt"]}
    answer = browser.post("/api/answers", json=body)
    assert answer.status_code == 200, answer.text
    return item


def test_a_campaign_from_its_form_to_its_end(app: FastAPI, store: Store) -> None:
    lea, ann = signed_in(app, "lea"), signed_in(app, "ann")
    lea.post("/lead/guidelines", data={"text": "For all."})
    place = begin(lea)
    assert place == "/lead/campaign?name=kindness"
    item = rate(ann, [7, 3])
    assert item["task"] == {"campaign": "kindness", "kind": "rating", "guideline": 2} and len(item["responses"]) == 2
    said = ann.get("/api/guidelines", params={"campaign": "kindness"}).json()
    assert said["text"] == "Rate *kindness*." and said["version"] == 2 and "blocks" in said
    assert ann.get("/api/guidelines").json()["text"] == "For all."
    assert ann.get("/api/history").json()["answer"]["task"]["kind"] == "rating"
    page = lea.get(place).text
    assert "1 <span" in page and "of 10 slots" in page and "5 items" in page and "model-0, model-2" in page
    assert "Rate *kindness*." in page and "For all." not in page
    assert "kindness" in lea.get("/lead/campaigns").text
    saved = {"change": "save", "share": "30", "overlap": "3", "text": "Rate\r\nhonesty."}
    assert lea.post(place, data=saved).status_code == 303
    assert "of 15 slots" in lea.get(place).text
    assert ann.get("/api/guidelines", params={"campaign": "kindness"}).json()["text"] == "Rate\nhonesty."
    assert "For all." in lea.get("/lead/guidelines").text and "honesty" not in lea.get("/lead/guidelines").text
    assert "Save as version 4" in lea.get("/lead/guidelines").text, "versions are counted through"
    for change, state in (("pause", "paused"), ("resume", "active"), ("end", "ended")):
        assert lea.post(place, data={"change": change}).status_code == 303
        with store.reading() as connection:
            assert connection.execute(select(campaigns.c.state)).scalar_one() == state
    assert lea.post(place, data={"change": "resume"}).status_code == 422
    assert "has ended" in lea.get(place).text
    with store.reading() as connection:
        actions = [one.action for one in audit.entries(connection)]
    assert actions.count("campaign changed") == 4 and actions.count("campaign made") == 1


def test_what_is_wrong_is_said_on_the_form_which_keeps_what_was_written(app: FastAPI, store: Store) -> None:
    lea = signed_in(app, "lea")
    answer = lea.post("/lead/campaigns", data={"name": "a/b", **FORM})
    assert answer.status_code == 422 and "cannot be the name of a campaign" in answer.text
    assert "Rate *kindness*." in answer.text and "selected>model-2" in answer.text.replace(" >", ">")
    place = begin(lea)
    for given, said in (
        ({"change": "save", "share": "101", "overlap": "1"}, "share 101: must be 0 to 100"),
        ({"change": "turn"}, "is not a change"), ({"change": "save", "share": "x"}, "could not be read"),
    ):  # fmt: skip
        answer = lea.post(place, data=given)
        assert answer.status_code == 422 and said in answer.text
    assert lea.get("/lead/campaign?name=none").status_code == 404
    assert lea.post("/lead/campaign?name=none", data={"change": "end"}).status_code == 404
    with store.reading() as connection:
        assert connection.execute(select(campaigns.c.share)).scalars().all() == [100]


def test_the_answers_of_a_campaign_are_exported_apart(app: FastAPI) -> None:
    lea, ann = signed_in(app, "lea"), signed_in(app, "ann")
    begin(lea, share="100", most="1")
    rate(ann, [2, 6])
    item = ann.get("/api/next").json()["item"]
    assert item["task"] is None
    body = {"assignment": item["assignment"], "places": [1, 2, 3, 4], "receipt": item["receipt"]}
    assert ann.post("/api/answers", json=body).status_code == 200
    for name, count in (
        ("rankings", {"": 2, "kindness": 1, "main": 1}),
        ("comparisons", {"": 7, "kindness": 1, "main": 6}),
    ):
        for campaign, lines in count.items():
            text = lea.get(f"/lead/export/{name}", params={"campaign": campaign}).text
            found = [json.loads(line) for line in text.splitlines()]
            assert len(found) == lines
            assert {row["campaign"] for row in found} <= ({None, "kindness"} if not campaign else {campaign, None})
    assert lea.get("/lead/export/rankings?campaign=typo").status_code == 422
    assert lea.get("/lead/export/store?campaign=kindness").status_code == 422


def test_every_table_of_the_leads_pages_is_a_file(app: FastAPI, store: Store, clock: Clock) -> None:
    lea = signed_in(app, "lea")
    begin(lea, "duel", task="policies", split="train", text="")
    for name in ("ann", "bob"):
        browser = signed_in(app, name)
        item = browser.get("/api/next").json()["item"]
        browser.post("/api/answers", json={"assignment": item["assignment"], "places": [1, 2]})
    clock.time += 60.0  # figures are kept for ten seconds
    lea.post("/lead/guidelines", data={"text": "=For all."})
    lea.post("/lead/invitations", data={"role": "labeler"})
    with store.transaction() as connection:
        row = {"prompt_id": "p00000", "labeler": "ann", "reason": "unsafe", "note": "=HYPERLINK(1)", "created_at": 1.0}
        connection.execute(insert(flags), [row] * 3)
        for n in range(1003):
            audit.note(connection, at=float(n), who="robot", action="counted", subject=f"{n}")
    of = {"labeler": "ann", "wins": "duel", "answers": "p00000", "audit": "robot", "flags": "open"}
    counts = {}
    for name in TABLES:
        asked = {"of": of[name]} if name in of else {}
        lines = lea.get(f"/lead/table/{name}", params={"form": "jsonl", **asked})
        table = lea.get(f"/lead/table/{name}", params={"form": "csv", **asked})
        assert lines.status_code == table.status_code == 200, name
        assert table.headers["content-disposition"] == f'attachment; filename="{name}.csv"'
        rows = [json.loads(line) for line in lines.text.splitlines()]
        cells = list(csv.DictReader(io.StringIO(table.text)))
        assert len(rows) == len(cells) and [*rows[0], *cells[0]] == [*rows[0]] * 2 if rows else not cells, name
        assert not re.search(r'(^|,)"?[=+@]', table.text, re.MULTILINE), name
        counts[name] = len(rows)
    assert counts["audit"] == 1003 and counts["flags"] == 3 and counts["wins"] == 1 and counts["campaigns"] == 1
    assert counts["samples"] == 5 and counts["labelers"] == 2 and counts["links"] == 1 and counts["pairs"] == 1
    assert counts["guidelines"] == 1 and counts["labeler"] == 1
    assert "'=HYPERLINK(1)" in lea.get("/lead/table/flags?form=csv").text
    assert len(lea.get("/lead/table/samples?state=flagged").text.splitlines()) == 1, "with the filters of the page"
    assert lea.get("/lead/table/none").status_code == lea.get("/lead/table/audit?form=xml").status_code == 404
    assert lea.get("/lead/table/wins?of=none").status_code == lea.get("/lead/table/answers?of=none").status_code == 404


def test_every_table_of_a_page_links_to_its_file(app: FastAPI) -> None:
    lea = signed_in(app, "lea")
    begin(lea, "duel", task="policies", split="train")
    linked = set()
    for path in ("/lead/audit", "/lead/samples", "/lead/labelers", "/lead/campaigns", "/lead/campaign?name=duel"):
        page = lea.get(path).text
        linked |= set(re.findall(r'href="(/lead/table/[^"]+)"', page))
        assert page.count("<table") <= page.count("form=csv"), path
    for address in linked:
        assert lea.get(address.replace("&amp;", "&")).status_code == 200, address


def test_decisions_and_gold_items_of_a_campaign_from_the_prompts_page(app: FastAPI, store: Store) -> None:
    lea, ann, bob = (signed_in(app, name) for name in ("lea", "ann", "bob"))
    begin(lea)
    rate(ann, [7, 3])
    rate(bob, [7, 3])
    prompt = "p00003"
    for name, places in (("ann", {f"{prompt}-0": 1, f"{prompt}-2": 2}), ("bob", {f"{prompt}-0": 2, f"{prompt}-2": 1})):
        store.add_answers([StoredAnswer(Ranking(name, prompt, name, places, (), 1.0), campaign="kindness")])
    assert f"/lead/prompt?id={prompt}&amp;campaign=kindness" in lea.get("/lead/conflicts").text
    page = lea.get("/lead/prompt", params={"id": prompt, "campaign": "kindness"}).text
    assert '<option value="kindness" selected>' in page and '<option value="main">the main task' in page
    given = {"decision": "rank", "place-0": "1", "place-2": "2", "campaign": "kindness"}
    answer = lea.post("/lead/prompt", params={"id": prompt}, data=given)
    assert answer.status_code == 303 and "campaign=kindness" in answer.headers["location"]
    (decision,) = [one for one in store.answers() if one.purpose == "adjudication"]
    assert decision.campaign == "kindness"
    assert f"/lead/prompt?id={prompt}" not in lea.get("/lead/conflicts").text
    assert "a ranking (kindness)" in lea.get(answer.headers["location"]).text
    answer = lea.post("/lead/prompt", params={"id": "p00004"}, data={**given, "decision": "gold"})
    assert answer.status_code == 303
    assert 'gold <span class="hint">kindness</span>' in lea.get(answer.headers["location"]).text
    page = lea.get("/lead/campaign?name=kindness").text
    assert "1 gold item" in page and "Its labelers" in page and "It has no gold items yet" not in page
    answer = lea.post("/lead/prompt", params={"id": "p00004"}, data={**given, "campaign": "nobody's"})
    assert answer.status_code == 422 and "there is no campaign" in answer.text
    rows = lea.get("/lead/table/labelers", params={"of": "kindness"}).text.splitlines()
    assert [json.loads(row)["answers"] for row in rows] == [2, 2, 1], "her decision too"
    assert lea.get("/lead/table/labelers", params={"of": "nobody's"}).status_code == 404
    stored = [json.loads(row) for row in lea.get("/lead/export/store").text.splitlines()]
    assert [one["campaign"] for one in stored if one["type"] == "gold"] == ["kindness"]
    assert [one["campaign"] for one in stored if one["type"] == "decision"] == ["kindness"]
