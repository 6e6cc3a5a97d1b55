"""The human step of a run: simulated labelers rank, people have ranked enough, or preferences were imported."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from triphase.errors import WaitingForPeople
from triphase.labeling.exchange.importing import import_comparisons
from triphase.labeling.quality.agreement import pairwise_agreement, ranking_alpha
from triphase.labeling.quality.labeler_quality import median_seconds
from triphase.labeling.simulation.simulated import SimulatedLabelers, simulate_rankings
from triphase.objectives.calibration import noise_ceiling_from_agreement
from triphase.records.cells import MAIN
from triphase.records.files import write_json
from triphase.records.types import Ranking
from triphase.runs.session import Run
from triphase.runs.store_contents import require_campaigns
from triphase.store import Store
from triphase.training.artifacts import RANKED

MOST_LABELERS = 30
"""Maximum number of labelers with individual statistics, those with the most rankings."""
PAGE = "http://127.0.0.1:8400"
"""The default address of the page."""


def label(run: Run) -> None:
    """Bring the rankings into the store, or report what is missing; then write `labelling.json`.

    Raises:
        WaitingForPeople: people have to rank, and have not ranked enough.
    """
    settings = run.settings.labeling
    with run.store() as store:
        store.add_prompts(run.prompts())
        if not run.settings.earlier_rounds:  # else they are in the store of the first
            _import_preferences(run, store)
        if settings.source == "simulated" and run.gold is not None:
            labelers = SimulatedLabelers(
                run.gold, run.settings.seed, settings.labelers, noise_scale=settings.noise_scale
            )
            simulate_rankings(
                store,
                labelers,
                overlap_share=settings.overlap_share,
                seed=run.settings.seed,
                rankings_per_prompt=settings.rankings_per_prompt,
            )
        require_campaigns(run.path, store, settings.campaigns)  # else nothing would be learned from, whoever ranks
        if settings.source == "people":
            _require_rankings(run, store)
        write_json(run.part(RANKED), _figures(settings.source, store))


def _import_preferences(run: Run, store: Store) -> None:
    comparisons = run.data.comparisons()
    if comparisons:
        import_comparisons(store, comparisons)


def _campaigns(store: Store) -> dict[str, Any]:
    """The number of answers of each campaign, and whether they are used; empty if there are none."""
    counts = Counter(one.campaign for one in store.answers(counted=False) if one.status == "active")
    if not any(counts):
        return {}
    read = store.read_campaigns
    return {
        "campaigns": {
            name or MAIN: {"answers": counts[name], "read": read is None or name in read} for name in sorted(counts)
        }
    }


def _require_rankings(run: Run, store: Store) -> None:
    ranked = {ranking.prompt_id for ranking in store.rankings()}
    ready = {response.prompt_id for response in store.responses()}
    wanted = math.ceil(run.settings.labeling.required_share * len(ready))
    done = len(ready & ranked)
    if done < wanted:
        raise WaitingForPeople(
            f"waiting for people to rank: {done} of {len(ready)} prompts have a ranking, {wanted} are needed, "
            f"{wanted - done} are missing (labeling.required_share). Serve the page with "
            f"`triphase label serve {run.path}` and open {PAGE}, or import rankings with "
            f"`triphase label import {run.path} FILE`; then run this command again"
        )


def _figures(source: str, store: Store) -> dict[str, Any]:
    rankings = store.rankings()
    agreement = pairwise_agreement(rankings).value
    return {
        "source": "imported" if source == "none" else source,
        "rankings": len(rankings),
        "prompts": len({ranking.prompt_id for ranking in rankings}),
        "comparisons": sum(len(group.pairs) for split in ("train", "heldout") for group in store.ranked_groups(split)),
        "labelers": len({ranking.labeler for ranking in rankings}),
        "agreement": None if agreement is None else agreement.value,
        "agreement_low": None if agreement is None else agreement.low,
        "agreement_high": None if agreement is None else agreement.high,
        "alpha": ranking_alpha(rankings),
        "noise_ceiling": None if agreement is None else _ceiling(agreement.value),
        "by_labeler": _by_labeler(rankings),
        **_campaigns(store),
    }


def _by_labeler(rankings: Sequence[Ranking]) -> list[dict[str, Any]]:
    """Each labeler's number of rankings and agreement with the others, those with the most rankings first."""
    given: dict[str, list[Ranking]] = {}
    for ranking in rankings:
        given.setdefault(ranking.labeler, []).append(ranking)
    names = sorted(given, key=lambda name: (-len(given[name]), name))[:MOST_LABELERS]
    return [_labeler(name, given[name], rankings, alone=len(given) == 1) for name in names]


def _labeler(name: str, own: Sequence[Ranking], rankings: Sequence[Ranking], *, alone: bool) -> dict[str, Any]:
    asked = {ranking.prompt_id for ranking in own}
    shared = () if alone else [ranking for ranking in rankings if ranking.prompt_id in asked]
    agreement = pairwise_agreement(shared, of=name).value
    pairs = [first != second for ranking in own for first, second in combinations(ranking.places.values(), 2)]
    return {
        "labeler": name,
        "rankings": len(own),
        "tied": 1 - sum(pairs) / len(pairs) if pairs else None,
        "seconds": median_seconds(own),
        "agreement": None if agreement is None else agreement.value,
        "agreement_low": None if agreement is None else agreement.low,
        "agreement_high": None if agreement is None else agreement.high,
    }


def _ceiling(agreement: float) -> float | None:
    # Below one half the labelers agree less than by chance, and no ceiling follows from it.
    return noise_ceiling_from_agreement(agreement) if agreement >= 0.5 else None
