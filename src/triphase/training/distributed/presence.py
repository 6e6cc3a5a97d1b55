"""Which ranks are there: each counts its collectives and its heartbeats at the meeting place.

A rank that is stuck in its own work beats on, and has come to fewer collectives than the others; one that is stopped,
killed or cut off no longer beats.
"""

import threading
import time
from contextlib import suppress
from typing import Any

_BEAT_SECONDS = 1.0
_LISTENS_SECONDS = 3.5


class Presence:
    """What this rank shows of itself, and sees of the others."""

    def __init__(self, store: Any, rank: int, world: int) -> None:
        """``store`` is where the ranks have met."""
        self._store, self._rank, self._world = store, rank, world
        self._collectives = 0
        self._over = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def come(self) -> None:
        """This rank comes to its next collective."""
        self._collectives += 1
        self._store.set(f"at/{self._rank}", str(self._collectives))

    def absent(self) -> str:
        """Who has not come to this collective, or else shows no sign of life."""
        try:
            behind = [rank for rank, count in enumerate(self._counts("at")) if count < self._collectives]
            if not behind:
                before = self._counts("beat")
                time.sleep(_LISTENS_SECONDS)
                now = self._counts("beat")
                behind = [rank for rank in range(self._world) if rank != self._rank and now[rank] == before[rank]]
        except RuntimeError:
            return "rank 0"  # the meeting place is gone with it
        return ", ".join(f"rank {rank}" for rank in behind) or "a rank"

    def lives(self, rank: int) -> bool:
        """Whether a rank shows signs of life."""
        try:
            before = self._counts("beat")[rank]
            time.sleep(_LISTENS_SECONDS)
            return self._counts("beat")[rank] != before
        except RuntimeError:
            return False  # the meeting place is gone with it

    def leave(self) -> None:
        """Beat no more."""
        self._over.set()

    def _counts(self, what: str) -> list[int]:
        keys = [f"{what}/{rank}" for rank in range(self._world)]
        return [int(self._store.get(key)) if self._store.check([key]) else 0 for key in keys]

    def _beat(self) -> None:
        count = 0
        with suppress(RuntimeError):  # the meeting place is gone: the main thread meets that too
            while not self._over.wait(_BEAT_SECONDS):
                count += 1
                self._store.set(f"beat/{self._rank}", str(count))
