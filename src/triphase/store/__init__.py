"""The database of prompts, responses and rankings: SQLite by default, PostgreSQL by URL."""

from triphase.store.database import Store, open_store

__all__ = ["Store", "open_store"]
