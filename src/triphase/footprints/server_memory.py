"""The memory that vLLM servers take which a run starts next to itself.

On a CPU a server holds the base, its cache of keys and values (VLLM_CPU_KVCACHE_SPACE), and its own processes. On a GPU
it takes a share of the card at its start, whatever it needs (`--gpu-memory-utilization`).
"""

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from triphase.rollouts.serving import cpu_cache_bytes
from triphase.settings.schema import RunSettings
from triphase.settings.services import RolloutSettings

if TYPE_CHECKING:
    from triphase.footprints.work import Work

PROCESSES = 1.97e9
"""Memory of a server's processes on a CPU besides weights and cache: vLLM 0.32 with SmolLM2-135M in float32 (0.54 GB)
and a cache of 2 GiB takes 4.66 GB in all, shared pages counted once."""
_SHARE, _SHARE_FLAG = 0.92, "--gpu-memory-utilization"
"""vLLM's default share of a card."""


def server_bytes(settings: RunSettings, work: "Work", *, card: float | None = None, ranks: int = 1) -> float:
    """Bytes that started servers take of the memory that this process has; ``card`` is the size of its GPU, if any.

    With several ``ranks``, of the GPU that most servers share.
    """
    rollouts = settings.rollouts
    if not rollouts.servers:
        return 0.0
    if card is None:
        return rollouts.servers * (work.base_bytes + cpu_cache_bytes() + PROCESSES)
    return _most_on_a_card(rollouts, ranks) * _share(rollouts) * card


def server_notes(settings: RunSettings, taken: float, *, on_card: bool) -> list[str]:
    """A line about the memory of started servers; none without them."""
    rollouts = settings.rollouts
    if not rollouts.servers:
        return []
    count = f"{rollouts.servers} {'server' if rollouts.servers == 1 else 'servers'}"
    if not on_card:
        line = f"{count} on this machine take about {taken / 1e9:.2f} GB in all: weights, cache and processes of each"
    elif not taken:
        line = f"{count} run on cards of their own (rollouts.devices), which this plan does not cover"
    else:
        line = (
            f"each server takes {_share(rollouts):g} of its card, all {rollouts.servers} {taken / 1e9:.2f} GB of a "
            f"card that trains too; name other cards in rollouts.devices, or a smaller share in rollouts.arguments "
            f"({_SHARE_FLAG}=0.4)"
        )
    return [f"rollouts.servers: {line}"]


def _most_on_a_card(rollouts: RolloutSettings, ranks: int) -> int:
    """The number of servers on the card of a rank; without `devices` each takes the first visible card."""
    if not rollouts.devices:
        return rollouts.servers
    taken = Counter(card.strip() for entry in rollouts.devices for card in entry.split(","))
    return max(taken[str(rank)] for rank in range(ranks))


def _share(rollouts: RolloutSettings) -> float:
    words = [part for word in rollouts.arguments for part in word.split("=", 1)]
    for flag, value in pairwise(words):
        if flag.replace("_", "-") == _SHARE_FLAG:
            try:
                return float(value)
            except ValueError:
                break
    return _SHARE
