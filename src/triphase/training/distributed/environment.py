"""Rank and number of processes, as torchrun and `--processes` put them into the environment. Without torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from triphase.errors import SettingsError

RANKS = "ranks"
"""The folder of a run with the logs of ranks other than 0."""
_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Place:
    """The rank of a process among those that train together.

    Attributes:
        rank: from 0; rank 0 leads: only it writes files.
        world: the number of processes.
        local_rank, local_world: the same, on this machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


def place_in(environment: Mapping[str, str]) -> Place:
    """The rank in the environment; a single process if there is none.

    Raises:
        SettingsError: a variable is missing, or not a valid number.
    """
    if "RANK" not in environment and "WORLD_SIZE" not in environment:
        return Place()
    given = {name: environment.get(name, "") for name in _NAMES}
    given["LOCAL_RANK"] = given["LOCAL_RANK"] or given["RANK"]
    given["LOCAL_WORLD_SIZE"] = given["LOCAL_WORLD_SIZE"] or given["WORLD_SIZE"]
    missing = [
        name for name, text in given.items() if not text and (name[:6] != "MASTER" or given["WORLD_SIZE"] != "1")
    ]
    if missing:
        raise SettingsError(
            f"the environment describes one of several processes, but lacks {', '.join(missing)}; start them by "
            "`triphase run CONFIG --processes N` or by torchrun"
        )
    try:
        rank, world, local_rank, local_world = (int(given[name]) for name in _NAMES[:4])
    except ValueError:
        rank, world, local_rank, local_world = -1, 0, 0, 0
    if not (0 <= rank < world and 0 <= local_rank < local_world <= world):
        told = ", ".join(f"{name}={given[name]}" for name in _NAMES[:4])
        raise SettingsError(f"{told}: is not a valid rank; start the processes by `triphase run CONFIG --processes N`")
    return Place(rank, world, local_rank, local_world)
