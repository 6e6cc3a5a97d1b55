"""The processes of a run join: same code, same settings, same data, one directory."""

import hashlib
import json
import os
import platform
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import triphase
from triphase.datacheck.model_names import place_of
from triphase.errors import RunError, SettingsError
from triphase.models.chain import chain_of
from triphase.models.loading import choose_device
from triphase.monitoring.memory import available_gb
from triphase.planning.machine import CARDS, Machine
from triphase.planning.machine_plan import plan_for
from triphase.records.files import make_directory, write_atomically
from triphase.runs.data_files import fingerprints_of
from triphase.runs.dependence import flat
from triphase.runs.differences import shown
from triphase.runs.provenance import versions
from triphase.settings.parallel import require_work
from triphase.settings.schema import RunSettings
from triphase.training.distributed.environment import RANKS, Place
from triphase.training.distributed.joining import backend_of, joined
from triphase.training.distributed.types import ALONE, Strategy

_TOKEN = "token"  # noqa: S105 - the name of a file
_MOST_NAMED = 4
_AMPLE = 8
"""A rank with this many times the memory of the weights' files has room for all that a run needs."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes of a run.

    Attributes:
        strategy: how they share the work, from this process's view.
        lines: a description of them, for display; empty for a single process.
    """

    strategy: Strategy = ALONE
    lines: tuple[str, ...] = ()


@contextmanager
def ranks_of(settings: RunSettings, place: Place) -> Iterator[Ranks]:
    """Join the other processes, and compare with them what must be the same, before anything is written.

    Raises:
        SettingsError: a step has too little work for all, or the processes cannot join.
        RunError: they have other code, versions, settings or data.
    """
    if place.world == 1:
        if settings.parallel.cpu_offload:
            raise SettingsError(
                "parallel.cpu_offload: moves parts of a sharded base, and a single process has the whole; start "
                "several (--processes, torchrun), or set it to false"
            )
        yield Ranks()
        return
    require_work(settings, place.world)
    device = choose_device(settings.model.device)
    torch.set_num_threads(threads_of(settings, place.local_world))
    on_gpu = device.type == "cuda"
    timeout = settings.parallel.timeout_seconds

    def shards(met: Strategy) -> bool:
        return bool(met.from_lead(lambda: is_divided(settings, place, device)))

    offloads = settings.parallel.cpu_offload
    with joined(place, on_gpu=on_gpu, timeout_seconds=timeout, shards=shards, offloads=offloads) as strategy:
        where = f"{torch.cuda.get_device_name()} ({place.local_rank})" if on_gpu else "cpu"
        who = f"{where}, threads: {torch.get_num_threads()}, process {os.getpid()} on {platform.node()}"
        cards = strategy.gather({"who": who, "has": fingerprints(settings)})
        strategy.barrier()  # each has read all values, and can report errors by itself
        require_alike([card["has"] for card in cards], [card["who"] for card in cards])
        backend = backend_of(on_gpu)
        lines = [f"{place.world} processes train together (strategy: {strategy.name}, backend: {backend})"]
        if offloads:
            where = "in the machine's memory" if on_gpu else "where they would be anyway, since there are no GPUs"
            lines.append(f"parallel.cpu_offload: each rank keeps its parts of the layers {where}")
        if strategy.shards and settings.parallel.strategy == "auto":
            lines.append("the whole base does not fit on every rank, so it is sharded (parallel.strategy)")
        lines += [f"rank {rank}: {card['who']}" for rank, card in enumerate(cards)]
        yield Ranks(strategy, tuple(lines))


def threads_of(settings: RunSettings, local_world: int) -> int:
    """CPU threads of this process: those of the settings, or its share of the cores."""
    return settings.threads or max(1, len(os.sched_getaffinity(0)) // local_world)


def is_divided(settings: RunSettings, place: Place, device: torch.device) -> bool:
    """Whether the base is divided among the ranks: as set, or if the plan finds that it must be.

    Raises:
        TriphaseError: the plan cannot be made.
    """
    chosen = settings.parallel.strategy
    if chosen != "auto" or settings.trains_whole or settings.sft_method == "full":
        return chosen == "fsdp2"
    on_gpu = device.type == "cuda"
    if on_gpu:
        memory = float(torch.cuda.get_device_properties(device).total_memory)
    else:
        memory = (available_gb() or 0.0) * 1e9 / place.local_world
    directory = chain_of(settings.model, place_of).directory
    if directory is not None:
        size = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
        if size * _AMPLE < memory:
            return False  # without a plan, which takes seconds
    card = min(CARDS.values(), key=lambda each: abs(each.memory - memory))
    return plan_for(settings, Machine(card, place.world, memory)).strategy == "fsdp2"


def fingerprints(settings: RunSettings) -> dict[str, str]:
    """What must be the same in all processes of a run, by name."""
    code = hashlib.sha256()
    package = Path(triphase.__file__).parent
    for path in sorted(package.rglob("*.py")):
        code.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes())
    return {
        "the code of triphase": code.hexdigest(),
        **{f"the version of {name}": version for name, version in versions().items()},
        **{f"the setting {key}": json.dumps(value) for key, value in flat(settings.model_dump(mode="json"))},
        **{f"the file {name}": digest for name, digest in fingerprints_of(settings).items()},
    }


def require_alike(found: list[Mapping[str, str]], who: list[str]) -> None:
    """Every rank must have what rank 0 has.

    Raises:
        RunError: names the first rank that has something else, and what.
    """
    lead = found[0]
    for rank, other in enumerate(found):
        different = [
            f"{name} ({shown(other.get(name))} there, {shown(lead.get(name))} on rank 0)"
            for name in [*lead, *(name for name in other if name not in lead)]
            if other.get(name) != lead.get(name)
        ]
        if different:
            more = f" and {len(different) - _MOST_NAMED} more" if len(different) > _MOST_NAMED else ""
            raise RunError(
                f"rank {rank} ({who[rank]}) differs from rank 0 in {'; '.join(different[:_MOST_NAMED])}{more}; start "
                "all ranks with the same command, installation and files"
            )


def show_directory(run: Path, strategy: Strategy) -> None:
    """Rank 0, which locks the run directory, lets the others check it; they refuse one that they do not share.

    Raises:
        RunError: what rank 0 has written is not visible here.
    """
    if strategy.world == 1:
        return
    token = secrets.token_hex(8)

    def written() -> dict[str, Any]:
        make_directory(run / RANKS)
        write_atomically(run / RANKS / _TOKEN, token)
        return {"token": token, "host": platform.node()}

    told = strategy.from_lead(written)
    path = run / RANKS / _TOKEN
    if not path.is_file() or path.read_text(encoding="utf-8") != told["token"]:
        raise RunError(
            f"rank {strategy.rank}: {run} on {platform.node()} is not the directory that rank 0 "
            f"writes to on {told['host']}; all ranks of a run need one shared directory (output)"
        )
