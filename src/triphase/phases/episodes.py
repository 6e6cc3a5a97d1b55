"""Which prompts an iteration asks, and with which seeds: of the run's seed alone, however many processes there are."""

from collections.abc import Sequence

from triphase.batches.order import pass_after_pass, seed_of
from triphase.rollouts.types import Request
from triphase.settings.ppo import PPOSettings


def prompts_of(count: int, settings: PPOSettings, *, seed: int, iteration: int) -> list[int]:
    """The prompt number, of ``count``, of each episode of an iteration; those of one prompt stand side by side."""
    times = settings.responses_per_prompt
    chosen = pass_after_pass(count, settings.batch_size // times, iteration, seed, "ppo", "order")
    return [number for number in chosen for _ in range(times)]


def requests_of(
    prompt_ids: Sequence[tuple[int, ...]], chosen: Sequence[int], *, seed: int, iteration: int
) -> list[Request]:
    """What a generator is asked for the prompts with these numbers: each episode has a seed of its own."""
    return [
        Request(prompt_ids[number], seed_of(seed, "ppo", "sampling", iteration, row))
        for row, number in enumerate(chosen)
    ]
