"""``label sample``: responses of any model to the prompts in a store, to be ranked with the others."""

import os
import time
from pathlib import Path

from triphase.cli import deferred
from triphase.cli.label import opened, say, settings_of_store
from triphase.errors import TriphaseError
from triphase.labeling.work import item_plan
from triphase.settings.phase_names import VARIANTS
from triphase.training.artifacts import is_place


def sample(
    run_or_store: str,
    model: str,
    /,
    *,
    count: int = 1,
    name: str | None = None,
    temperature: float = 1.0,
    max_response_tokens: int = 128,
    seed: int = 0,
) -> None:
    """Sample responses of any model to the prompts in the store.

    Existing responses are not sampled again.

    Args:
        run_or_store: run directory, SQLite file, or PostgreSQL URL.
        model: the directory of a run (its newest policy), a model's directory, a hub id, or embedded:smollm2.
        count: responses per prompt.
        name: name of the model in the store, which labelers never see; by default the last part of MODEL
            (of RUN/ppo/final: the run and the phase).
        temperature: sampling temperature.
        max_response_tokens: longest response, in tokens.
        seed: seed of the responses, together with name and prompt.
    """
    for option, value in (("count", count), ("temperature", temperature), ("max-response-tokens", max_response_tokens)):
        if value <= 0:
            raise TriphaseError(f"--{option} is {value}; it must be above 0")
    called = name or name_of(model)
    with opened(run_or_store, must_exist=True) as store:
        prompts = store.prompts()
        if not prompts:
            raise TriphaseError(f"{run_or_store}: contains no prompts; import some with `triphase label import`")
        have = {response.id for response in store.responses()}
        missing = [prompt for prompt in prompts if any(f"{prompt.id}/{called}/{n}" not in have for n in range(count))]
        if missing:
            deferred.sample_into(
                store,
                model,
                missing,
                called=called,
                count=count,
                temperature=temperature,
                max_response_tokens=max_response_tokens,
                seed=seed,
            )
        settings, order = settings_of_store(run_or_store)
        item_plan.make_items(store, settings, seed=order, now=time.time())
    responses = f"{count} {'response' if count == 1 else 'responses'}"
    hint = "" if missing else "; responses in the store have this name too: give --name for another model"
    say(f"{called}: {responses} to each of {len(prompts)} prompts, {len(missing)} of them new{hint}.")


def name_of(model: str) -> str:
    """A distinctive name of a model: two policies of one run are both called `final` by their directories."""
    place = Path(model).resolve() if os.path.isdir(model) else Path(model)
    if not is_place(place):
        return place.name.removeprefix("embedded:")
    run = place.parents[2 if place.parent.parent.name == VARIANTS else 1]
    return "-".join(part for part in (run.name, place.parent.name) if part)
