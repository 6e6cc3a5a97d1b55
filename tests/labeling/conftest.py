"""Fixtures: a store on SQLite (and on PostgreSQL under its marker), and passwords that are quick to hash."""

import pytest
from argon2 import PasswordHasher
from tests.labeling.crowd import Clock
from tests.stores import postgres, store

from triphase.labeling.work import accounts

__all__ = ["postgres", "store"]


@pytest.fixture(autouse=True)
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(accounts, "_hasher", hasher)
    monkeypatch.setattr(accounts, "_NOBODY", hasher.hash("nobody at all"))


@pytest.fixture
def clock() -> Clock:
    return Clock()
