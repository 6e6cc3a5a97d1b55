"""Joining the other processes of a run, and leaving them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from triphase.errors import SettingsError
from triphase.training.distributed.environment import Place
from triphase.training.distributed.fsdp2 import Sharded
from triphase.training.distributed.replicated import Replicated
from triphase.training.distributed.types import ALONE, LeadEnded, Strategy
from triphase.training.stopping import Stopped

_MEETING_SECONDS = 120


@contextmanager
def joined(
    place: Place, *, on_gpu: bool, timeout_seconds: float, shards: Callable[[Strategy], bool] = lambda met: False
) -> Iterator[Strategy]:
    """The strategy of this process while the block lasts; a single process joins nobody.

    Args:
        on_gpu: whether tensors are on cards; each rank of a machine takes its own.
        timeout_seconds: how long ranks wait for one another in a step.
        shards: asked once the ranks have met, and alike on all: whether the base is divided among them.

    Raises:
        SettingsError: the processes cannot meet: a port is in use, a machine has too few cards, or some have not come.
    """
    if place.world == 1:
        yield ALONE
        return
    strategy = _met(place, on_gpu=on_gpu, timeout_seconds=timeout_seconds)
    try:
        if shards(strategy):
            kind = "cuda" if on_gpu else "cpu"
            strategy = Sharded(strategy, device_type=kind, timeout_seconds=timeout_seconds)
        yield strategy
    except LeadEnded as end:
        if end.clean:
            _part(strategy)
    except Stopped:
        _part(strategy)
        raise
    except BaseException:
        if strategy.is_lead:
            strategy.say_ended(clean=False)
        raise  # the others may wait in a step: that this process ends is what tells them
    else:
        _part(strategy)


def _met(place: Place, *, on_gpu: bool, timeout_seconds: float) -> Replicated:
    if on_gpu:
        _take_card(place)
    waits = timedelta(seconds=timeout_seconds)
    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=_MEETING_SECONDS)))
        group = PrefixStore("group", store)
        dist.init_process_group(backend_of(on_gpu), store=group, rank=place.rank, world_size=place.world, timeout=waits)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        busy = "EADDRINUSE" in str(error)
        what = "is in use by another program; choose another (MASTER_PORT)" if busy else "is where they should meet"
        raise SettingsError(f"rank {place.rank} of {place.world} found no way to the others: {where} {what}") from error
    return Replicated(PrefixStore("run", store), place.rank, place.world)


def backend_of(on_gpu: bool) -> str:
    """What carries the tensors: gloo those of processors, NCCL those of cards."""
    return "cpu:gloo,cuda:nccl" if on_gpu else "gloo"


def _part(strategy: Replicated) -> None:
    """All are done: nobody takes the meeting place away while another still reads from it."""
    if strategy.is_lead:
        strategy.say_ended(clean=True)
    strategy.barrier()
    strategy.leave()
    dist.destroy_process_group()


def _take_card(place: Place) -> None:
    cards = torch.cuda.device_count()
    if place.local_world > cards:
        raise SettingsError(f"{place.local_world} processes on this machine, and {cards} cards; start as many as cards")
    torch.cuda.set_device(place.local_rank)
