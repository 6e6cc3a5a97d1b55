"""Distribution of work: samples of one optimizer step divided among ranks so that all end at about the same time."""

from collections.abc import Sequence


def divide(costs: Sequence[int], world: int, owners: Sequence[int] | None = None) -> list[int]:
    """The rank of each sample, whose cost is its tokens. The same on every rank: it depends only on the arguments.

    Without ``owners`` the largest sample goes first, each to the rank with the lowest load. With them a sample stays
    with its owner, which has cached its hidden states, except those that must move to reduce the highest load.
    """
    if world == 1:
        return [0] * len(costs)
    ranks, loads = [0] * len(costs), [0] * world
    if owners is None:
        for place in sorted(range(len(costs)), key=lambda place: (-costs[place], place)):
            ranks[place] = loads.index(min(loads))
            loads[ranks[place]] += costs[place]
    else:
        ranks = list(owners)
        for rank, cost in zip(ranks, costs, strict=True):
            loads[rank] += cost
    while (moved := _best_move(costs, ranks, loads)) is not None:
        place, target = moved
        loads[ranks[place]] -= costs[place]
        loads[target] += costs[place]
        ranks[place] = target
    return ranks


def _best_move(costs: Sequence[int], ranks: Sequence[int], loads: Sequence[int]) -> tuple[int, int] | None:
    """The sample to move from the rank with the highest load to that with the lowest; None if no move helps."""
    most, least = loads.index(max(loads)), loads.index(min(loads))
    after = [
        (max(loads[most] - costs[place], loads[least] + costs[place]), place)
        for place, rank in enumerate(ranks)
        if rank == most
    ]
    if not after or min(after)[0] >= loads[most]:
        return None
    return min(after)[1], least
