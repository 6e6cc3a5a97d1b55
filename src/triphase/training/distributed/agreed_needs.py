"""What each rank needs next, sent to all: ranks with parts of one model never wait for different ones.

A round is one number from each rank. It lasts until all have arrived, and rank 0 may take any time between two.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from triphase.training.distributed.presence import Presence
from triphase.training.distributed.types import RankLost

HERE, LOADS, FIRST_BLOCK = 0, 1, 2
"""A rank has reached the next collective; it is about to load the model; it needs the block with this number, or one of
those after it."""
_FIRST_PAUSE, _LONGEST_PAUSE = 2e-5, 5e-3
_ASKS_SECONDS = 0.2
_FOREVER = timedelta(days=3650)


def choose(needs: list[int]) -> int:
    """The next action, the same on every rank: the block that most need, then loading; `HERE` once all are.

    Ranks that do the same passes need the same block, so each gather serves all of them.
    """
    blocks = [need for need in needs if need >= FIRST_BLOCK]
    if blocks:
        return max(sorted(set(blocks)), key=blocks.count)
    return max(needs)


class Rounds:
    """The rounds of one process group."""

    def __init__(
        self,
        store: Any,
        presence: Presence,
        rank: int,
        world: int,
        *,
        timeout_seconds: float,
        look: Callable[[], None],
    ) -> None:
        """``look`` is called now and then while this rank waits, and raises if there is nothing to wait for."""
        self._store, self._presence, self._rank, self._world = store, presence, rank, world
        self._timeout, self._look = timeout_seconds, look
        self._group = dist.new_group(backend="gloo", timeout=_FOREVER)
        self._number = 0

    def say(self, need: int) -> list[int]:
        """The needs of all ranks, in order.

        Raises:
            RankLost: a rank is gone, or a rank other than 0 does not arrive in time.
        """
        self._number += 1
        rows = [torch.zeros(1, dtype=torch.int64) for _ in range(self._world)]
        try:
            work = dist.all_gather(rows, torch.tensor([need]), group=self._group, async_op=True)
            self._wait(work)
        except RuntimeError as error:
            self._look()
            raise RankLost(_lost(self._presence.absent(), "has ended")) from error
        return [int(row) for row in rows]

    def _wait(self, work: Any) -> None:
        began, pause, asked = time.monotonic(), _FIRST_PAUSE, 0.0
        while not work.is_completed():
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            waited = time.monotonic() - began
            if waited > asked + _ASKS_SECONDS:
                if not asked:
                    self._store.set(f"round/{self._rank}", str(self._number))
                asked = waited
                self._look()
                if waited > self._timeout:
                    began, asked = time.monotonic(), _ASKS_SECONDS
                    self._require_life()
        work.wait()

    def _require_life(self) -> None:
        """Waiting ranks have recorded their round; only rank 0 may take its time, as long as it has a heartbeat."""
        behind = [rank for rank in range(self._world) if rank != self._rank and self._come(rank) < self._number]
        if behind == [0] and self._presence.lives(0):
            return
        who = ", ".join(f"rank {rank}" for rank in behind) or "a rank"
        raise RankLost(_lost(who, "did not arrive in time (parallel.timeout_seconds)"))

    def _come(self, rank: int) -> int:
        key = f"round/{rank}"
        with suppress(RuntimeError):
            if self._store.check([key]):
                return int(self._store.get(key))
        return 0


def _lost(who: str, what: str) -> str:
    return (
        f"{who} {what}, and this rank cannot continue alone; the logs of the ranks are in the "
        f"run's directory `ranks`. Finished work is kept: the same command resumes from the last checkpoint"
    )
