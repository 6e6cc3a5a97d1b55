"""The store is locked, or its server is unreachable: one line with the remedy, and the run can continue later."""

import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.postgres_server import PostgresServer, postgres_server
from tests.runs import small_run

from triphase.cli.main import main
from triphase.errors import StoreError
from triphase.records.types import Message, Prompt
from triphase.runs import pipeline
from triphase.store import Store, database, open_store

PROMPT = Prompt("p", (Message("user", "hello"),))
HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN " + sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.3)


@contextmanager
def held(path: Path, how: str = "IMMEDIATE") -> Iterator[int]:
    """Another process holds the file."""
    command = [sys.executable, "-c", HOLDER, str(path), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        yield holder.pid
        holder.stdin.close()


def test_a_store_that_another_program_holds_is_named_after_the_wait(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with held(tmp_path / "labels.sqlite"):
            begin = time.monotonic()
            with pytest.raises(StoreError, match=r"labels\.sqlite is locked by another program .*close that program"):
                store.add_prompts([PROMPT])
            assert 0.25 < time.monotonic() - begin < 10
            assert store.prompts() == []  # reading goes on
        store.add_prompts([PROMPT])
        assert store.prompts() == [PROMPT]


def test_a_new_store_that_is_held_is_named_too(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "labels.sqlite").close()
    with held(tmp_path / "labels.sqlite", "EXCLUSIVE"), pytest.raises(StoreError, match="is locked by another program"):
        open_store(tmp_path)
    open_store(tmp_path).close()


def test_a_run_whose_store_is_held_goes_on_when_it_is_free(tmp_path: Path) -> None:
    small_run.write_data(tmp_path)
    chosen = small_run.settings(tmp_path)
    made = small_run.do(chosen, pipeline.run_sft)
    with made.store() as store:
        store.add_prompts([])
    with held(made.path / "labels.sqlite"), pytest.raises(StoreError, match="is locked by another program") as caught:
        small_run.do(chosen, pipeline.run_sampling)
    assert "\n" not in str(caught.value)
    run = small_run.do(chosen, pipeline.run_sampling)
    with run.store() as store:
        assert len(store.responses()) == 3 * len(store.prompts())


@pytest.mark.postgres
def test_a_server_that_refuses_is_one_line_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert main(["label", "stats", f"postgresql://lead:secret@127.0.0.1:{port}/labels"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cannot be reached" in said and "refused" in said
    assert "check that the database runs" in said and "secret" not in said


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as started:
        yield started


@pytest.mark.postgres
def test_a_server_that_goes_away_is_named_and_is_used_again_when_it_is_back(server: PostgresServer) -> None:
    with open_store(server.new_database()) as store:
        store.add_prompts([PROMPT])
        server.stop("immediate")
        with pytest.raises(StoreError, match="cannot be reached"):
            store.prompts()
        server.start()
        assert store.prompts() == [PROMPT]


@pytest.mark.postgres
def test_a_server_that_breaks_off_a_transaction_leaves_nothing_of_it(server: PostgresServer) -> None:
    with open_store(server.new_database()) as store:
        store.add_prompts([PROMPT])
        with pytest.raises(StoreError), store.transaction() as connection:
            connection.execute(text("UPDATE prompts SET kind = 'changed'"))
            ended = _process_of(store, connection)
            with store.transaction() as other:
                other.execute(text("SELECT pg_terminate_backend(:id)"), {"id": ended})
            connection.execute(text("SELECT 1"))
        assert store.prompts() == [PROMPT]


def _process_of(store: Store, connection) -> int:  # type: ignore[no-untyped-def]
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar())
