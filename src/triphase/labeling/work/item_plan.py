"""Which prompts labelers get, how many labelers each gets, and in what order."""

import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, pstdev
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from triphase.labeling.work import audit
from triphase.labeling.work.campaign_plan import (
    MOST_RESPONSES,
    Campaign,
    all_campaigns,
    campaign_called,
    candidates,
    gold_misfit,
)
from triphase.settings.schema import LabelingSettings
from triphase.store import Store
from triphase.store.checks import RecordRefused
from triphase.store.locking import Lock, one_at_a_time
from triphase.store.record_rows import as_json
from triphase.store.schema import assignments, items, responses
from triphase.store.schema import scores as scores_table

__all__ = ["MOST_RESPONSES", "Planned", "add_campaign_items", "add_gold", "make_items", "plan", "reprioritize"]


@dataclass(frozen=True, slots=True)
class Planned:
    """A prompt that becomes an item."""

    prompt_id: str
    response_ids: tuple[str, ...]
    slots: int
    chosen_by: str
    priority: float


def make_items(store: Store, settings: LabelingSettings, *, seed: int, now: float) -> int:
    """Create items and slots for every prompt with 2 to 9 responses that has neither an item nor a ranking.

    This is done for the main task, and for each campaign that has not ended. Return how many were created. Called when
    the server starts and after each import; running it again adds nothing.
    """
    with store.transaction() as connection:
        one_at_a_time(connection, Lock.ITEMS)  # two servers that start together would create every item twice
        planned = plan(candidates(connection, None, seed), _scores(connection), settings, seed=seed)
        if planned:
            _insert_items(connection, planned, "")
            after = {"items": len(planned)}
            audit.note(connection, at=now, who="triphase", action="items made", subject="store", after=after)
        made = len(planned)
        for campaign in all_campaigns(connection):
            if campaign.state != "ended":
                made += add_campaign_items(connection, campaign, settings, seed=seed, now=now)
    if made:
        store.take_stock()
    return made


def add_campaign_items(
    connection: Connection, campaign: Campaign, settings: LabelingSettings, *, seed: int, now: float
) -> int:
    """Create the missing items of a campaign, each with as many slots as requested answers; return how many."""
    fitting = settings.model_copy(update={"rankings_per_prompt": campaign.overlap, "overlap_share": 0.0})
    planned = plan(candidates(connection, campaign, seed), _scores(connection), fitting, seed=seed)
    if planned:
        _insert_items(connection, planned, campaign.name)
        after = {"items": len(planned)}
        audit.note(connection, at=now, who="triphase", action="items made", subject=campaign.name, after=after)
    return len(planned)


def plan(
    candidates: Mapping[str, Sequence[str]],
    scores: Mapping[str, Mapping[str, float]],
    settings: LabelingSettings,
    *,
    seed: int,
) -> list[Planned]:
    """Order and overlap of the candidates (prompt → responses).

    Without scores the order is random. With them, all but ``random_share`` are ordered by the reward models'
    uncertainty; the random ones are mixed in evenly, so that at every moment the ranked items include both.
    """
    draw = random.Random(f"items {seed} {len(candidates)}")  # noqa: S311 (an order, not a secret)
    order = sorted(candidates)
    draw.shuffle(order)
    scored = (
        [prompt for prompt in order if all(response in scores for response in candidates[prompt])] if scores else []
    )
    kept_random = round(settings.random_share * len(scored))
    at_random = [prompt for prompt in order if prompt not in set(scored[kept_random:])]
    active = sorted(scored[kept_random:], key=lambda prompt: uncertainty(candidates[prompt], scores))
    chosen = [(index / max(len(at_random), 1), "random", prompt) for index, prompt in enumerate(at_random)]
    chosen += [(index / max(len(active), 1), "active", prompt) for index, prompt in enumerate(active)]
    made: list[Planned] = []
    more = {prompt for prompt in order if draw.random() < settings.overlap_share}
    for _, chosen_by, prompt in sorted(chosen):
        slots = max(settings.overlap, settings.rankings_per_prompt) if prompt in more else settings.rankings_per_prompt
        made.append(Planned(prompt, tuple(candidates[prompt]), slots, chosen_by, float(len(made))))
    return made


def uncertainty(response_ids: Sequence[str], scores: Mapping[str, Mapping[str, float]]) -> float:
    """The reward models' certainty about the order of these responses; smaller is less certain.

    The mean over pairs of |mean score difference| − standard deviation of that difference over the ensemble.
    """
    values = []
    for one, other in combinations(response_ids, 2):
        common = sorted(scores[one].keys() & scores[other].keys())
        differences = [scores[one][scorer] - scores[other][scorer] for scorer in common]
        if differences:
            values.append(abs(fmean(differences)) - pstdev(differences))
    return fmean(values) if values else float("inf")


def reprioritize(store: Store, settings: LabelingSettings, *, seed: int) -> int:
    """Reorder the items that nobody has started by the scores now in the store; return how many."""
    with store.transaction() as connection:
        begun = select(assignments.c.item_id).where(assignments.c.state.in_(("leased", "done")))
        query = select(items).where(items.c.kind == "label", items.c.id.not_in(begun)).with_for_update()
        waiting: dict[str, dict[str, Row[Any]]] = defaultdict(dict)
        for row in connection.execute(query):
            waiting[row.campaign][row.prompt_id] = row
        for of_campaign in waiting.values():
            asked = {prompt: _ids(row.response_ids) for prompt, row in of_campaign.items()}
            for each in plan(asked, _scores(connection), settings, seed=seed):
                item = of_campaign[each.prompt_id].id
                values = {"priority": each.priority, "chosen_by": each.chosen_by}
                connection.execute(update(items).where(items.c.id == item).values(values))
                slots = update(assignments).where(assignments.c.item_id == item)
                connection.execute(slots.values(priority=each.priority))
    return sum(map(len, waiting.values()))


def add_gold(
    connection: Connection, prompt_id: str, places: Mapping[str, int], *, now: float, by: str, campaign: str = ""
) -> bool:
    """Make a prompt a gold item: its known answer measures labelers, and it is not a comparison.

    A gold item of a campaign is no longer an ordinary item of that campaign; one of the main task (empty), of none.
    False if it is one already, with the same answer.
    """
    known = [row.id for row in connection.execute(select(responses.c.id).where(responses.c.prompt_id == prompt_id))]
    unknown = sorted(set(places) - set(known))
    if unknown or len(places) < 2:
        raise RecordRefused(
            "gold", prompt_id,
            f"gold answer for prompt {prompt_id!r}: "
            + (f"response {unknown[0]!r} does not belong to it" if unknown else "rank at least two responses"),
        )  # fmt: skip
    of = campaign_called(connection, campaign) if campaign else None
    if campaign and (why := gold_misfit(of, places) if of else f"campaign {campaign!r} is not in the store"):
        raise RecordRefused("gold", prompt_id, f"gold answer for prompt {prompt_id!r}: {why}")
    of_prompt = (items.c.prompt_id == prompt_id, items.c.kind == "gold", items.c.campaign == campaign)
    there = connection.execute(select(items).where(*of_prompt)).first()
    values = {"response_ids": as_json([id_ for id_ in known if id_ in places]), "gold_places": as_json(dict(places))}
    if there is not None and there.gold_places == values["gold_places"] and not there.closed:
        return False
    if there is None:
        row = {
            "prompt_id": prompt_id,
            "kind": "gold",
            "overlap": 0,
            "chosen_by": "random",
            "priority": 0.0,
            "closed": False,
            "campaign": campaign,
        }
        connection.execute(insert(items), {**row, **values})
    else:
        connection.execute(update(items).where(items.c.id == there.id).values(**values, closed=False))
    slots = select(items.c.id).where(items.c.prompt_id == prompt_id, items.c.kind == "label")
    slots = slots.where(items.c.campaign == campaign) if campaign else slots
    waiting = (assignments.c.item_id.in_(slots), assignments.c.state == "open")
    connection.execute(update(assignments).where(*waiting).values(state="closed"))
    before = None if there is None else {"places": there.gold_places}
    audit.note(
        connection, at=now, who=by, action="gold answer set", before=before, after=dict(places),
        subject=prompt_id + (f" in {campaign}" if campaign else ""),
    )  # fmt: skip
    return True


def _scores(connection: Connection) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in connection.execute(select(scores_table)):
        found[row.response_id][row.scorer] = row.score
    return dict(found)


def _insert_items(connection: Connection, planned: Sequence[Planned], campaign: str) -> None:
    rows = [
        {
            "prompt_id": each.prompt_id, "kind": "label", "response_ids": as_json(list(each.response_ids)),
            "overlap": each.slots, "chosen_by": each.chosen_by, "priority": each.priority, "closed": False,
            "campaign": campaign,
        }
        for each in planned
    ]  # fmt: skip
    connection.execute(insert(items), rows)
    of_campaign = select(items).where(items.c.kind == "label", items.c.campaign == campaign)
    made = {row.prompt_id: row.id for row in connection.execute(of_campaign)}
    slots = [
        {
            "item_id": made[each.prompt_id], "purpose": "label", "seat": str(number), "priority": each.priority,
            "state": "open", "campaign": campaign,
        }
        for each in planned
        for number in range(each.slots)
    ]  # fmt: skip
    connection.execute(insert(assignments), slots)


def _ids(text: str) -> list[str]:
    found: list[str] = json.loads(text)
    return found
