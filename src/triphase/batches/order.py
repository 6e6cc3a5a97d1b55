"""The order of samples, and their division into microbatches. All of it follows from the seed."""

import hashlib
from collections.abc import Sequence

import torch

# The overhead of a forward and backward pass, in tokens: small on a CPU, on a GPU its kernel launches.
_PASS_TOKENS, _GPU_PASS_TOKENS = 64, 4096
# Maximum tokens of a pass if the settings do not say. A CPU multiplies 512 rows as fast as more of them, and their
# activations take a quarter of the memory (docs/performance.md).
_MOST_TOKENS, _GPU_MOST_TOKENS = 512, 4096


def seed_of(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one purpose, derived from the run's seed.

    Random numbers are drawn from a fresh generator for each purpose and index (``"ppo", "sampling", iteration, row``),
    so there is no generator state to save: a resumed run draws the same numbers.
    """
    digest = hashlib.sha256("\x1f".join([str(seed), *map(str, names)]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for one purpose (see `seed_of`)."""
    return torch.Generator().manual_seed(seed_of(seed, *names))


def permutation(count: int, seed: int, *names: str | int) -> list[int]:
    """A random order of ``range(count)`` for one purpose."""
    order: list[int] = torch.randperm(count, generator=generator(seed, *names)).tolist()
    return order


def pass_after_pass(count: int, size: int, step: int, seed: int, *names: str | int) -> list[int]:
    """The ``size`` samples of a step, out of ``count``: pass after pass over all of them, each in its own order."""
    positions = range(step * size, (step + 1) * size)
    passes = range(positions[0] // count, positions[-1] // count + 1)
    orders = {number: permutation(count, seed, *names, number) for number in passes}
    return [orders[position // count][position % count] for position in positions]


def most_tokens(setting: int | None, *, on_card: bool) -> int:
    """The maximum tokens of a pass: the setting, or a suitable value for a GPU or a CPU."""
    if setting is not None:
        return setting
    return _GPU_MOST_TOKENS if on_card else _MOST_TOKENS


def microbatches(lengths: Sequence[int], *, max_tokens: int | None, on_card: bool) -> list[list[int]]:
    """Divide samples into groups of similar length, each of at most ``max_tokens`` padded tokens.

    Of all divisions of the sorted samples it has the lowest cost, where a group costs its padded tokens and a fixed
    number for the pass itself. A sample that is longer than ``max_tokens`` forms its own group. The result is a
    partition: every index occurs once. Sums over a batch do not depend on it; only memory and speed do. None is 512
    tokens on a CPU, 4096 on a GPU; ``on_card`` says where the passes run, which a machine with a GPU leaves open.
    """
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    fixed = _GPU_PASS_TOKENS if on_card else _PASS_TOKENS
    max_tokens = most_tokens(max_tokens, on_card=on_card)
    costs, starts = [0], [0]  # of the first 0, 1, 2 … samples: the lowest cost, and the start of their last group
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        most = max(1, max_tokens // longest)
        cost, start = min((costs[start] + longest * (end - start), start) for start in range(max(0, end - most), end))
        costs.append(cost + fixed)
        starts.append(start)
    groups: list[list[int]] = []
    end = len(order)
    while end:
        groups.append(order[starts[end] : end])
        end = starts[end]
    return groups[::-1]
