"""Text that hides or acts, in everything that strangers write: no page, download or command lets it through."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import insert
from tests.labeling.crowd import PLAIN, Clock, people, prepared, served, signed_in

from triphase.cli.main import main
from triphase.labeling.exchange.exporting import FORMATS
from triphase.labeling.web.tables_download import TABLES
from triphase.labeling.work import audit, invitations
from triphase.records.types import Message, Prompt, Ranking, Response
from triphase.store import Store, open_store, schema
from triphase.store.answers import StoredAnswer

SIGNS = "\u3164\u115f\u034f\ufe00\U000e0100\u2800\U0001d173\U00013430\u00ad\u200b\x9b\u202e"
BAD = f"x{SIGNS}y"
URL = quote(BAD)
PAGES = (
    "/lead", "/lead/labelers", f"/lead/labelers/{URL}", "/lead/flags", "/lead/guidelines", "/lead/campaigns",
    f"/lead/campaign?name={URL}", "/lead/samples", f"/lead/samples?text={URL}", "/lead/conflicts", "/lead/audit",
    "/lead/prompt?id=q", "/rank", "/api/next", "/api/guidelines", "/api/history",
)  # fmt: skip
ABOUT = {"answers": "q", "audit": "", "flags": "", "labelers": "", "labeler": URL, "guidelines": "", "wins": URL}


@pytest.fixture
def hiding(tmp_path: Path) -> Iterator[Store]:
    """A store as an older version, or an import, may have left it."""
    with open_store(tmp_path) as store:
        prepared(store, PLAIN, 1, "ann", responses=1)
        people(store, "lea", role="lead")
        store.add_prompts([Prompt("q", (Message("user", BAD),), kind=BAD)])
        store.add_responses(Response(f"r{n}", "q", f"{n}{BAD}", f"{BAD}{n}") for n in range(3))
        made = {"created_by": BAD, "created_at": 0.0}
        task = {"task": "ranking", "state": "active", "share": 50, "overlap": 1, "split": "", "kind": BAD, "most": 0}
        models = json.dumps([f"{BAD}0", f"{BAD}1"])
        flag = {"prompt_id": "q", "labeler": BAD, "reason": "broken", "note": BAD, "created_at": 0.0}
        rows = (
            (schema.labelers, {"name": BAD, "role": "lead", "status": "active"}),
            (schema.guidelines, {"version": 1, "text": BAD, "campaign": "", **made}),
            (schema.campaigns, {"name": BAD, "models": models, **task, **made}),
            (schema.flags, flag),
        )
        with store.transaction() as connection:
            for table, row in rows:
                connection.execute(insert(table), row)
            audit.note(connection, at=0.0, who=BAD, action="seen", subject=BAD, before={BAD: BAD}, after={"a": BAD})
            invitations.invite(connection, "labeler", now=Clock()(), by=BAD)
        for name in ("", BAD):
            for by, places in ((BAD, {"r0": 1, "r1": 2, "r2": 3}), ("ann", {"r0": 3, "r1": 2, "r2": 1})):
                ranking = Ranking(f"{by}{name}", "q", by, places, ("r0", "r1", "r2"), 0.0, note=BAD)
                store.add_answers([StoredAnswer(ranking, rationale=BAD, rewrites={"r1": BAD}, campaign=name)])
        yield store


def raw(text: str) -> list[str]:
    return sorted({f"U+{ord(sign):04X}" for sign in text if sign in SIGNS})


def test_pages_and_downloads_show_what_hides(hiding: Store) -> None:
    tables = [
        f"/lead/table/{name}?form={form}&of={ABOUT.get(name, '')}" for name in TABLES for form in ("csv", "jsonl")
    ]
    lines = [f"/lead/export/{name}" for name in FORMATS]
    with served(hiding) as app:
        lea = signed_in(app, "lea")
        shown = 0
        for path in (*PAGES, *tables, *lines):
            answer = lea.get(path)
            assert answer.status_code == 200, path
            text = re.sub(r'<option value="[^"]*"', "", answer.text)  # which a form sends back as it is
            assert not raw(text), (path, raw(text))
            shown += "⟦U+202E⟧" in answer.text or "\\u202e" in answer.text
        assert shown > 30
        # A table that is read in again keeps the bare text of its cells; texts of models are JSON.
        for name in ("comparisons", "demonstrations"):
            rows = lea.get(f"/lead/export/{name}?form=csv").text.splitlines()
            assert len(rows) > 1 and "\\u202e" in rows[1]


def test_commands_show_what_hides(hiding: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hiding.close()
    run, file = str(tmp_path), tmp_path / "x.jsonl"
    commands = (
        ["stats", run], ["stats", run, "--campaign", BAD], ["stats", run, "--campaign", f"{BAD}z"],
        ["users", "list", run], ["campaigns", "list", run], ["campaigns", "set", run, BAD, "--state", "paused"],
        ["users", "pause", run, BAD], ["export", run, str(file)],
    )  # fmt: skip
    for words in commands:
        assert main(["label", *words]) == 2 * (f"{BAD}z" in words), words
        said = capsys.readouterr()
        assert not raw(said.out + said.err), words
    assert not raw(file.read_text())
