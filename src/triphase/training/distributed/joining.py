"""Joining the other processes of a run, and leaving them."""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from triphase.errors import SettingsError, WaitingForPeople
from triphase.training.distributed.environment import Place
from triphase.training.distributed.fsdp2 import Sharded
from triphase.training.distributed.replicated import Replicated
from triphase.training.distributed.types import ALONE, LeadEnded, RankLost, Strategy
from triphase.training.stopping import Stopped

_MEETING_SECONDS = 120
_LOOKS_SECONDS = 0.02


@contextmanager
def joined(
    place: Place,
    *,
    on_gpu: bool,
    timeout_seconds: float,
    shards: Callable[[Strategy], bool] = lambda met: False,
    offloads: bool = False,
) -> Iterator[Strategy]:
    """The strategy of this process while the block lasts; a single process joins no group.

    Args:
        on_gpu: whether tensors are on GPUs; each rank of a machine takes its own.
        timeout_seconds: how long ranks wait for each other in a step.
        offloads: whether the parts of a divided base are kept in the machine's memory.
        shards: called after the rendezvous, with the same result on all ranks: whether the base is divided among them.

    Raises:
        SettingsError: the rendezvous fails: a port is in use, a machine has too few GPUs, or some ranks are missing.
    """
    if place.world == 1:
        yield ALONE
        return
    strategy = _met(place, on_gpu=on_gpu, timeout_seconds=timeout_seconds)
    try:
        if _are_divided(shards, strategy):
            kind = "cuda" if on_gpu else "cpu"
            strategy = Sharded(strategy, device_type=kind, timeout_seconds=timeout_seconds, offloads=offloads)
        yield strategy
    except LeadEnded as end:
        if end.clean:
            _part(strategy)
    except Stopped:
        _part(strategy)
        raise
    except WaitingForPeople:
        _part(strategy)  # rank 0 waits for rankings, the others for rank 0: not a failure, and none is reported
        raise
    except BaseException:
        if strategy.is_lead:
            strategy.say_ended(clean=False)
        raise  # the others may wait in a step: the end of this process is what notifies them
    else:
        _part(strategy)


def _are_divided(shards: Callable[[Strategy], bool], strategy: Strategy) -> bool:
    try:
        return shards(strategy)
    except LeadEnded:  # no work has started that could be ended cleanly
        raise RankLost("rank 0 ended before training started; see its output") from None


def _met(place: Place, *, on_gpu: bool, timeout_seconds: float) -> Replicated:
    if on_gpu:
        _take_card(place)
    waits = timedelta(seconds=timeout_seconds)
    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=_MEETING_SECONDS)))
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            store = PrefixStore(f"start/{start_name(store, place)}", store)
        group = PrefixStore("group", store)
        dist.init_process_group(backend_of(on_gpu), store=group, rank=place.rank, world_size=place.world, timeout=waits)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        busy = "EADDRINUSE" in str(error)
        what = "is in use by another program; choose another (MASTER_PORT)" if busy else "is the rendezvous address"
        raise SettingsError(
            f"rank {place.rank} of {place.world} cannot reach the other ranks: {where} {what}"
        ) from error
    return Replicated(PrefixStore("run", store), place.rank, place.world, timeout_seconds=timeout_seconds)


def start_name(store: Any, place: Place) -> str:
    """A name that only the processes of this start share.

    torchrun keeps its store when it restarts all processes, with the entries of the ended ones: addresses at which
    nothing listens any more. Restart counts differ between machines. So rank 0 replies to each rank under the random
    name that this rank chose.

    Raises:
        RuntimeError: a rank does not join in time.
    """
    name = secrets.token_hex(8)
    if place.rank:
        store.set(f"hello/{place.rank}", name)
        told: str = store.get(f"token/{name}").decode()
        store.set(f"heard/{told}/{place.rank}", "")
        return told
    waiting, end = set(range(1, place.world)), time.monotonic() + _MEETING_SECONDS
    while waiting:
        if time.monotonic() > end:
            raise RuntimeError(f"rank {min(waiting)} did not arrive")
        for rank in sorted(waiting):
            if store.check([f"hello/{rank}"]):
                store.set(f"token/{store.get(f'hello/{rank}').decode()}", name)
            if store.check([f"heard/{name}/{rank}"]):
                waiting.remove(rank)
        time.sleep(_LOOKS_SECONDS)
    return name


def backend_of(on_gpu: bool) -> str:
    """The communication backends: gloo for CPU tensors, NCCL for GPU tensors."""
    return "cpu:gloo,cuda:nccl" if on_gpu else "gloo"


def _part(strategy: Replicated) -> None:
    """All ranks are done: the store must not close while another rank still reads from it."""
    if strategy.is_lead:
        strategy.say_ended(clean=True)
    strategy.barrier()
    strategy.leave()
    dist.destroy_process_group()


def _take_card(place: Place) -> None:
    cards = torch.cuda.device_count()
    if place.local_world > cards:
        raise SettingsError(
            f"{place.local_world} processes on this machine, but {cards} GPUs; start one process per GPU"
        )
    torch.cuda.set_device(place.local_rank)
