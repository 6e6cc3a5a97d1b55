"""Responses of any model to prompts of a store, to be ranked with the others."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from triphase.models.roles import SharedModel
from triphase.monitoring.progress import progress_for
from triphase.phases.sampling import sample_responses
from triphase.records.types import Prompt
from triphase.rollouts.types import Generator
from triphase.runs.generators import sampler_of
from triphase.runs.opening import open_any, open_run
from triphase.settings.loading import RUN_CONFIG
from triphase.store import Store

_AT_ONCE = 64
"""Number of responses that are generated together."""
_KEPT = 8 * _AT_ONCE
"""Number of responses after which completed work is stored."""


def sample_into(
    store: Store,
    model: str,
    prompts: Sequence[Prompt],
    *,
    called: str,
    count: int,
    temperature: float,
    max_response_tokens: int,
    seed: int,
) -> None:
    """Sample ``count`` responses to each prompt; existing ones stay unchanged."""
    have = {response.id for response in store.responses()}
    shared, adapter, max_length = open_any(model)
    step = max(1, _KEPT // count)
    with (
        _generator_of(model, shared, adapter) as generator,
        progress_for().track(f"sampling from {called}", len(prompts) * count, unit="responses") as track,
    ):
        for start in range(0, len(prompts), step):
            found = sample_responses(
                shared,
                prompts[start : start + step],
                adapter=adapter,
                model=called,
                count=count,
                temperature=temperature,
                max_response_tokens=max_response_tokens,
                max_length=max_length,
                batch_size=_AT_ONCE,
                seed=seed,
                on_finished=track.advance,
                generator=generator,
            )
            store.add_responses(response for _, response, _ in found if response.id not in have)


@contextmanager
def _generator_of(model: str, shared: SharedModel, adapter: str | None) -> Iterator[Generator | None]:
    """The servers of a run that samples for people by servers; None is this process."""
    if not os.path.isfile(Path(model, RUN_CONFIG)):  # False for a name that is too long
        yield None
        return
    with sampler_of(open_run(Path(model)), "sampling", shared) as sampler, sampler(shared, adapter) as generator:
        yield generator
