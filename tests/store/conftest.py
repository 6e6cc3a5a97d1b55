"""A store on SQLite, and on PostgreSQL under its marker."""

from tests.stores import postgres, store

__all__ = ["postgres", "store"]
