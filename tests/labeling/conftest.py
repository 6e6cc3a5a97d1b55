"""Fixtures: a store on SQLite (and on PostgreSQL under its marker), and passwords that are quick to hash."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from tests.labeling.crowd import Clock
from tests.postgres_server import PostgresServer, postgres_server

from triphase.labeling.work import accounts
from triphase.store import Store, open_store


@pytest.fixture(autouse=True)
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(accounts, "_hasher", hasher)
    monkeypatch.setattr(accounts, "_NOBODY", hasher.hash("nobody at all"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    where = tmp_path if request.param == "sqlite" else request.getfixturevalue("postgres").new_database()
    with open_store(where) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()
