"""Rounds: sample from the newest policy, rank, retrain the reward model on all rankings, continue PPO.

A further round is a separate run in `rounds/K` of the first, with its own store; it takes the SFT policy from the
first, and its settings name the earlier rounds (`earlier_rounds`). So each is resumed, labeled, evaluated and reported
like any run.
"""

from collections.abc import Iterator
from pathlib import Path

from triphase.models.roles import POLICY, SharedModel
from triphase.monitoring.wording import percent
from triphase.records.types import RankedGroup
from triphase.reports.rounds import BEFORE, FOLDER, accuracies_of
from triphase.runs.opening import open_policy
from triphase.runs.references import SFT_MODEL
from triphase.runs.session import Run
from triphase.settings.phase_names import PPO
from triphase.settings.places import expanded
from triphase.settings.schema import RunSettings
from triphase.store import open_store
from triphase.store.database import FILE_NAME as STORE
from triphase.training.artifacts import place_of
from triphase.training.finals import load_policy

__all__ = ["BEFORE", "continue_policy", "earlier_rankings", "further_rounds", "newest_round", "sampled_as"]
_SEEDS = 1000
"""Difference between the seeds of two rounds, so that those of runs with other seeds differ."""


def further_rounds(settings: RunSettings) -> Iterator[RunSettings]:
    """The settings of the second and later rounds."""
    first = (expanded(settings.output) / settings.name).resolve()
    before = [str(first)]
    for number in range(2, settings.rounds + 1):
        sft = settings.sft
        if settings.sft_method in ("lora", "full"):
            sft = type(sft).model_validate({**sft.model_dump(), "from": str(first)})
        own = _SEEDS * (number - 1)
        ppo = (
            settings.ppo
            if settings.ppo.seed is None
            else settings.ppo.model_copy(update={"seed": settings.ppo.seed + own})
        )
        yield settings.model_copy(
            update={
                "name": str(number),
                "output": str(first / FOLDER),
                "seed": settings.seed + own,
                "rounds": 1,
                "earlier_rounds": tuple(before),
                "variants": {},
                "sft": sft,
                "ppo": ppo,
            }
        )
        before.append(str(first / FOLDER / str(number)))


def newest_round(run: Run) -> Path:
    """The run of the round before."""
    return Path(run.settings.earlier_rounds[-1])


def sampled_as(run: Run) -> str:
    """The policy whose responses are ranked, by its name in the store."""
    earlier = run.settings.earlier_rounds
    return SFT_MODEL if not earlier else f"ppo-round-{len(earlier)}"


def sampled_policy(run: Run) -> tuple[SharedModel, str | None]:
    """The policy whose responses are ranked, with its adapter: the SFT policy, or that of the round before."""
    if not run.settings.earlier_rounds:
        return run.model(), run.reference_adapter
    shared, adapter, _ = open_policy(newest_round(run), policy=PPO)
    return shared, adapter


def earlier_rankings(run: Run) -> list[RankedGroup]:
    """The rankings of training prompts of the earlier rounds."""
    found: list[RankedGroup] = []
    for place in run.settings.earlier_rounds:
        store = open_store(Path(place) / STORE)
        try:
            found += store.ranked_groups("train")
        finally:
            store.close()
    return found


def continue_policy(run: Run, shared: SharedModel) -> None:
    """Start PPO of a further round from the policy of the previous one; the reference stays the SFT policy."""
    if run.settings.earlier_rounds:
        load_policy(shared, POLICY, place_of(newest_round(run), PPO))


def round_note(run: Run) -> str | None:
    """The benefit of a round's refit, in a line; None if no held-out prompt was ranked."""
    first, second = accuracies_of(run.path, run.settings.seed) or (None, None)
    if first is None or second is None:
        return None
    before, after = percent(first.value), percent(second.value)
    return (
        f"round {run.settings.name}: of the held-out judgments on the newest policy's responses "
        f"the reward model was correct on {before} before, and on {after} after it was retrained"
    )
