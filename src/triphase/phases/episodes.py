"""The prompts and seeds of an iteration: they depend on the run's seed alone, not on the number of processes."""

from collections.abc import Sequence

from triphase.batches.order import pass_after_pass, seed_of
from triphase.rollouts.types import Request
from triphase.settings.ppo import PPOSettings


def prompts_of(count: int, settings: PPOSettings, *, seed: int, iteration: int) -> list[int]:
    """The prompt number, below ``count``, of each episode of an iteration; episodes of one prompt are adjacent."""
    times = settings.responses_per_prompt
    chosen = pass_after_pass(count, settings.batch_size // times, iteration, seed, "ppo", "order")
    return [number for number in chosen for _ in range(times)]


def requests_of(
    prompt_ids: Sequence[tuple[int, ...]], chosen: Sequence[int], *, seed: int, iteration: int
) -> list[Request]:
    """The requests to a generator for the prompts with these numbers: each episode has its own seed."""
    return [
        Request(prompt_ids[number], seed_of(seed, "ppo", "sampling", iteration, row))
        for row, number in enumerate(chosen)
    ]
