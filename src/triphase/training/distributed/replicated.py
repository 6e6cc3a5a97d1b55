"""Every rank has the whole model and a share of each step's samples; gradients are summed over ranks.

One flattened all-reduce per optimizer step, of adapters and heads: a few megabytes. The optimizer then does the same on
every rank, so nothing else is sent. The model has no wrapper: generation, adapter switching and parameters without a
gradient work as in a single process.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from triphase.errors import is_out_of_memory
from triphase.training.distributed.presence import Presence
from triphase.training.distributed.shares import divide
from triphase.training.distributed.types import GREATEST, LeadEnded, RankLost, Strategy

T = TypeVar("T")
_BUCKET = 16 * 2**20
"""Maximum numbers in one flattened sum of gradients: 64 MB."""
_FIRST_WAIT, _LONGEST_WAIT = 0.001, 0.05
ENDED = "ended"
"""The key under which rank 0 says that it is done."""


class Replicated(Strategy):
    """A process group in which each rank holds a replica."""

    name = "replicated"

    def __init__(self, store: Any, rank: int, world: int, *, timeout_seconds: float = 600.0) -> None:
        """``store`` is that of the rendezvous; the process group exists already. A rank that waits for rank 0 waits
        as long as that has a heartbeat, and ``timeout_seconds`` more."""
        self.rank, self.world, self._timeout = rank, world, timeout_seconds
        self._store = store
        self._presence = Presence(store, rank, world)
        self._said = self._gathered = 0

    def _continue(self, met: "Replicated") -> None:
        """Take over from another strategy of the same ranks."""
        self.rank, self.world, self._timeout = met.rank, met.world, met._timeout
        self._store, self._presence = met._store, met._presence
        self._said, self._gathered = met._said, met._gathered

    def mine(self, costs: Sequence[int], owners: Sequence[int] | None = None) -> list[int]:
        """See Strategy."""
        ranks = divide(costs, self.world, owners)
        return [place for place, rank in enumerate(ranks) if rank == self.rank]

    def divided(self, costs: Sequence[int]) -> list[int]:
        """See Strategy."""
        return divide(costs, self.world)

    @torch.no_grad()
    def sum_gradients(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """See Strategy. A non-finite sum is non-finite on every rank: all skip the step, or none."""
        every = list(parameters.values())
        device = every[0].device if every else None
        has = torch.tensor([float(each.grad is not None) for each in every], device=device)
        for bucket in _buckets(every):
            last = bucket[-1] is every[-1]
            parts = [
                torch.zeros(each.numel(), device=device) if each.grad is None else each.grad.reshape(-1).float()
                for each in bucket
            ]
            flat = torch.cat([*parts, has] if last else parts)
            self._all_reduce(flat)
            place = 0
            for each in bucket:
                summed = flat[place : place + each.numel()].view_as(each).to(each.dtype)
                each.grad = summed.clone() if each.grad is None else each.grad.copy_(summed)
                place += each.numel()
            if last:
                has = flat[place:]
        for each, count in zip(every, has.tolist(), strict=True):
            if count == 0:
                each.grad = None

    @torch.no_grad()
    def sum_tensors(self, tensors: Sequence[Tensor]) -> None:
        """See Strategy."""
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            alike = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in alike])
            self._all_reduce(flat)
            for tensor, part in zip(alike, torch.split(flat, [tensor.numel() for tensor in alike]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def total(self, figures: Mapping[str, float]) -> dict[str, float]:
        """See Strategy. Summed in the order of ranks, so that all ranks get the same bits."""
        rows = [torch.zeros(len(figures), dtype=torch.float64) for _ in range(self.world)]
        mine = torch.tensor(list(figures.values()), dtype=torch.float64)
        self._meet()
        with self._answered():
            dist.all_gather(rows, mine)
        columns = zip(*(row.tolist() for row in rows), strict=True)
        return {
            name: max(column) if name.endswith(GREATEST) else sum(column)
            for name, column in zip(figures, columns, strict=True)
        }

    def from_lead(self, make: Callable[[], T]) -> T:
        """See Strategy.

        Raises:
            LeadEnded: there is nothing left to wait for.
            RankLost: rank 0 is gone.
        """
        if self.is_lead:
            made = make()  # an exception here ends the run, and is reported under the key for which the others wait
            key, self._said = f"said/{self._said}", self._said + 1
            self._store.set(key, json.dumps(made))
            return made
        key, self._said = f"said/{self._said}", self._said + 1
        found: T = self._await(key)
        if isinstance(found, dict) and ENDED in found:
            raise LeadEnded(found[ENDED])
        if self._store.add(f"heard/{key}", 1) == self.world - 1:  # no other rank will read it
            for each in (key, f"heard/{key}"):
                self._store.delete_key(each)
        return found

    def say_ended(self, *, clean: bool) -> None:
        """Rank 0 is done: every rank that waits for it, or will, is notified; ``clean`` as in LeadEnded."""
        with suppress(RuntimeError):
            self._store.set(f"said/{self._said}", json.dumps({ENDED: clean}))

    def gather(self, value: Any) -> list[Any]:
        """See Strategy."""
        number, self._gathered = self._gathered, self._gathered + 1
        self._store.set(f"gather/{number}/{self.rank}", json.dumps(value))
        self.barrier()  # notices a rank that does not arrive
        return [self._await(f"gather/{number}/{rank}") for rank in range(self.world)]

    def any(self, flag: bool) -> bool:
        """See Strategy."""
        return self.total({"flag": float(flag)})["flag"] > 0

    def leave(self) -> None:
        """This rank no longer uses the others."""
        self._presence.leave()

    def barrier(self) -> None:
        """See Strategy."""
        self.total({"here": 1.0})

    def _meet(self) -> None:
        """Before a collective: first serve what the other ranks need from this one."""

    def _all_reduce(self, tensor: Tensor) -> None:
        self._meet()
        with self._answered():
            dist.all_reduce(tensor)

    def _await(self, key: str) -> Any:
        pause, is_silent = _FIRST_WAIT, self._presence.silence_of(0, self._timeout)
        try:
            while not self._store.check([key]):
                if is_silent():
                    raise RuntimeError("timed out")
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_WAIT)
            return json.loads(self._store.get(key))
        except RuntimeError as error:
            raise RankLost(_gone("rank 0", error)) from error

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """A collective: its failure is one line, which names the ranks that have not reached it.

        Raises:
            RankLost: a rank has ended, or did not come in time.
        """
        try:
            self._presence.come()
            yield
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise RankLost(_gone(self._presence.absent(), error)) from error


def _gone(who: str, error: Exception) -> str:
    what = "did not arrive in time (parallel.timeout_seconds)" if "imed out" in str(error) else "has ended"
    return (
        f"{who} {what}, and this rank cannot continue alone; the logs of the ranks are in the "
        f"run's directory `ranks`. Finished work is kept: the same command resumes from the last checkpoint"
    )


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    size = 0
    for each in parameters:
        if bucket and size + each.numel() > _BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(each)
        size += each.numel()
    if bucket:
        yield bucket
