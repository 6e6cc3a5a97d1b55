"""Which ranks are alive: each counts its collectives and its heartbeats in the store.

A rank that is stuck in its own work keeps its heartbeat, and has reached fewer collectives than the others; one that is
stopped, killed or disconnected has no heartbeat.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_BEAT_SECONDS = 1.0
_LISTENS_SECONDS = 3.5


class Presence:
    """This rank's signs of life, and its view of the others."""

    def __init__(self, store: Any, rank: int, world: int) -> None:
        """``store`` is the store of the rendezvous."""
        self._store, self._rank, self._world = store, rank, world
        self._collectives = 0
        self._over = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def come(self) -> None:
        """This rank reaches its next collective."""
        self._collectives += 1
        self._store.set(f"at/{self._rank}", str(self._collectives))

    def absent(self) -> str:
        """The ranks that have not reached this collective, or else those without a heartbeat."""
        try:
            behind = [rank for rank, count in enumerate(self._counts("at")) if count < self._collectives]
            if not behind:
                before = self._counts("beat")
                time.sleep(_LISTENS_SECONDS)
                now = self._counts("beat")
                behind = [rank for rank in range(self._world) if rank != self._rank and now[rank] == before[rank]]
        except RuntimeError:
            return "rank 0"  # it hosts the store, which is gone
        return ", ".join(f"rank {rank}" for rank in behind) or "a rank"

    def lives(self, rank: int) -> bool:
        """Whether a rank has a heartbeat."""
        try:
            before = self._counts("beat")[rank]
            time.sleep(_LISTENS_SECONDS)
            return self._counts("beat")[rank] != before
        except RuntimeError:
            return False  # it hosts the store, which is gone

    def silence_of(self, rank: int, seconds: float) -> Callable[[], bool]:
        """Whether a rank has had no heartbeat for so many seconds, for whoever asks again and again."""
        heard, since, asked = -1, time.monotonic(), -_BEAT_SECONDS

        def is_silent() -> bool:
            nonlocal heard, since, asked
            now = time.monotonic()
            if now < asked + _BEAT_SECONDS:
                return False
            asked, beat = now, self._counts("beat")[rank]
            if beat != heard:
                heard, since = beat, now
            return now > since + seconds

        return is_silent

    def leave(self) -> None:
        """Stop the heartbeat."""
        self._over.set()

    def _counts(self, what: str) -> list[int]:
        keys = [f"{what}/{rank}" for rank in range(self._world)]
        return [int(self._store.get(key)) if self._store.check([key]) else 0 for key in keys]

    def _beat(self) -> None:
        count = 0
        with suppress(RuntimeError):  # the store is gone: the main thread will notice it too
            while not self._over.wait(_BEAT_SECONDS):
                count += 1
                self._store.set(f"beat/{self._rank}", str(count))
