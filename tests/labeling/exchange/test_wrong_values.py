"""One wrong value anywhere in a file: refused with file and line, and nothing kept; or accepted, and harmless."""

import random
import re
import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from tests.labeling.crowd import PLAIN, Clock, people, served, signed_in
from tests.labeling.exchange.wrong import FILES, variations, write

from triphase.errors import DataError, StoreError
from triphase.labeling.exchange.exporting import FORMATS, export_file, export_lines
from triphase.labeling.exchange.importing import import_file
from triphase.labeling.quality.labeling_statistics import collect
from triphase.labeling.quality.stats_text import print_statistics
from triphase.labeling.work import item_plan
from triphase.store import Store, open_store

PAGES = ("", "/labelers", "/conflicts", "/flags?state=all", "/guidelines", "/samples", "/samples?state=gold", "/audit")
SHARE = 1_500
"""Variations in the ordinary tests, drawn anew by every change of the list; the slow test takes them all."""


class Trial:
    """Two stores, and a lead who is signed in to the page over the first; both are emptied after each file."""

    def __init__(self, folder: Path) -> None:
        self.file, self.exported = folder / "rows.jsonl", folder / "again.jsonl"
        self.store, self.other = (open_store(folder / f"{name}.sqlite") for name in ("one", "two"))
        people(self.store, "lea", role="lead")
        self.server = served(self.store, clock=Clock())
        self.app = self.server.__enter__()
        self.lead = signed_in(self.app, "lea")
        self.empty = sqlite3.connect(folder / "empty.sqlite")
        with _raw(self.store) as connection:
            connection.backup(self.empty)
        self.accepted = self.refused = 0
        self.seen: set[str] = set()

    def close(self) -> None:
        self.server.__exit__(None, None, None)
        self.store.close()
        self.other.close()
        self.empty.close()

    def restore(self, store: Store) -> None:
        with _raw(store) as connection:
            self.empty.backup(connection)

    def try_one(self, name: str, number: int, path: tuple, wrong: object) -> None:
        """Import a file with one wrong value."""
        write(self.file, name, number, path, wrong)
        try:
            import_file(self.store, self.file)
        except (DataError, StoreError) as error:
            self.refused += 1
            assert re.search(r"rows\.jsonl(:\d+: |: contains rows of several formats)", str(error)), error
            assert "\x1b" not in str(error) and "\n" not in str(error)
            assert self.store.prompts() == [] and self.store.responses() == []
            return
        try:
            self.harmless()
        finally:
            self.restore(self.store)
        self.accepted += 1

    def harmless(self) -> None:
        """The lead's pages, the statistics, the items and the exports of the accepted file."""
        content = "".join(export_lines(self.store, "store"))
        if content in self.seen:  # a value that is not read: what the store holds was looked at before
            return
        item_plan.make_items(self.store, PLAIN, seed=0, now=0.0)
        print_statistics(collect(self.store, 1.8e9), Console(file=StringIO()))
        self.store.ranked_groups("train")
        self.app.state.context.kept_statistics.clear()
        for page in PAGES:
            assert self.lead.get(f"/lead{page}").status_code == 200, page
        for prompt in self.store.prompts()[:2]:
            assert self.lead.get("/lead/prompt", params={"id": prompt.id}).status_code == 200
        for kind in FORMATS:
            export_file(self.store, self.exported, kind)
            if self.exported.stat().st_size:
                self.comes_back(kind)
        self.seen.add(content)

    def comes_back(self, kind: str) -> None:
        self.restore(self.other)
        import_file(self.other, self.exported)
        if kind == "store":
            assert self.other.answers(counted=False) == self.store.answers(counted=False)
            assert self.other.responses() == self.store.responses() and self.other.prompts() == self.store.prompts()
        if kind == "comparisons":
            before = [one for one in self.store.comparisons("train") if one.chosen.strip() and one.rejected.strip()]
            assert sorted(self.other.comparisons("train"), key=repr) == sorted(before, key=repr)


@contextmanager
def _raw(store: Store) -> Iterator[sqlite3.Connection]:
    with store.reading() as connection:
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        connection.rollback()
        yield raw


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    trial = Trial(tmp_path)
    yield trial
    trial.close()


def tried(trial: Trial, every: list) -> None:
    failed = []
    for each in every:
        try:
            trial.try_one(*each)
        except Exception as error:  # each is told with what caused it
            failed.append((each, "".join(traceback.format_exception(error)[-3:])))
    print(f"{trial.refused} refused, {trial.accepted} accepted and harmless, {len(failed)} neither")
    for each, error in failed[:10]:
        print(f"{each!r:.300}\n{error[-600:]}")
    assert not failed, f"{len(failed)} of {len(every)}"


def test_every_format_is_accepted_as_it_should_be(trial: Trial) -> None:
    for name, rows in FILES.items():
        trial.try_one(name, 0, (next(iter(rows[0])),), next(iter(rows[0].values())))
    assert (trial.accepted, trial.refused) == (len(FILES), 0)


def test_a_wrong_value_is_refused_or_harmless(trial: Trial) -> None:
    tried(trial, random.Random(len(list(variations()))).sample(list(variations()), SHARE))


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_every_wrong_value_is_refused_or_harmless(trial: Trial) -> None:
    tried(trial, list(variations()))
