"""Fixtures: a store on SQLite, and on PostgreSQL under its marker."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.postgres_server import PostgresServer, postgres_server

from triphase.store import Store, open_store


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server of the tests' own."""
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    where = tmp_path if request.param == "sqlite" else request.getfixturevalue("postgres").new_database()
    with open_store(where) as opened:
        yield opened
