"""The definition of a campaign, and its selection of prompts and responses.

The main task of a store has no row among the campaigns; its name is empty, and ``main`` in the user interface.
"""

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select

from triphase.records.cells import MAIN
from triphase.store.schema import campaigns, items, prompts, rankings, responses

MOST_RESPONSES = 9
"""Places are entered with the digits 1 to 9."""
TASKS: Mapping[str, str] = {
    "ranking": "order the responses of each prompt, ties allowed",
    "ab": "choose the better of two responses, drawn at random from those of each prompt",
    "rating": "rate each response from 1 to 7; the ranking follows from the ratings",
    "policies": "choose the better of the policies' responses, blind (on held-out prompts, unless a split is chosen)",
}
"""Task → description of what labelers do."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """A task next to the main one.

    ``share``: percent of what labelers get. ``overlap``: answers to each item. ``models``, ``split`` and ``kind``
    select prompts and responses, ``most`` limits the number of prompts; empty or 0 is no limit.
    """

    name: str
    task: str = "ranking"
    share: int = 20
    overlap: int = 1
    models: tuple[str, ...] = ()
    split: str = ""
    kind: str = ""
    most: int = 0
    state: str = "active"


def all_campaigns(connection: Connection) -> list[Campaign]:
    """Every campaign, in the order of creation."""
    query = select(campaigns).order_by(campaigns.c.created_at, campaigns.c.name)
    return [_campaign(row) for row in connection.execute(query)]


def campaign_called(connection: Connection, name: str) -> Campaign | None:
    """One campaign, or None."""
    row = connection.execute(select(campaigns).where(campaigns.c.name == name)).first()
    return None if row is None else _campaign(row)


def learned_from(connection: Connection, wanted: Sequence[str] | None) -> frozenset[str] | None:
    """The campaigns whose answers a run reads, by name, the main task's empty; None is all of them.

    By default all except comparisons of policies are read. A name that does not exist (yet) is kept: see ``missing``.
    """
    if wanted is not None:
        return frozenset("" if name == MAIN else name for name in wanted)
    judging = set(connection.execute(select(campaigns.c.name).where(campaigns.c.task == "policies")).scalars())
    if not judging:
        return None
    return frozenset({"", *connection.execute(select(rankings.c.campaign).distinct()).scalars()} - judging)


def known_names(connection: Connection) -> list[str]:
    """The main task, every campaign, and those of imported answers, by their names for users."""
    imported = sorted(connection.execute(select(rankings.c.campaign).distinct()).scalars())
    return list(dict.fromkeys([MAIN, *(one.name for one in all_campaigns(connection)), *filter(None, imported)]))


def missing(connection: Connection, wanted: Sequence[str] | None) -> list[str]:
    """Names that are neither of a campaign nor of imported answers."""
    known = known_names(connection)
    return [name for name in wanted or () if name not in known]


def candidates(connection: Connection, campaign: Campaign | None, seed: int) -> dict[str, list[str]]:
    """Selected prompts that are not yet items, with their 2 to 9 responses; None is the main task."""
    found: dict[str, list[Row[*tuple[Any, ...]]]] = defaultdict(list)
    query = (
        select(responses.c.prompt_id, responses.c.id, responses.c.text, responses.c.model)
        .join(prompts)
        .where(*_conditions(campaign))
        .order_by(prompts.c.position, responses.c.position)
    )
    for row in connection.execute(query):
        found[row.prompt_id].append(row)
    chosen = {prompt: _of_task(campaign, prompt, answered, seed) for prompt, answered in found.items()}
    asked = {prompt: ids for prompt, ids in chosen.items() if len(ids) > 1}
    if campaign is None or not campaign.most:
        return asked
    of_campaign = select(items.c.id).where(items.c.campaign == campaign.name, items.c.kind == "label")
    there = len(connection.execute(of_campaign).all())
    return dict(
        sorted(asked.items(), key=lambda each: _drawn(seed, campaign, each[0]))[: max(0, campaign.most - there)]
    )


def gold_misfit(campaign: Campaign, places: Mapping[str, int]) -> str:
    """Why a known answer would reveal itself among the items of a campaign; empty if it looks like them."""
    asked = {"ab": 2, "policies": len(campaign.models)}.get(campaign.task, MOST_RESPONSES)
    if 2 <= len(places) <= asked:
        return ""
    wanted = "2" if asked == 2 else f"2 to {asked}"
    return (
        f"{len(places)} responses are ranked, but the items of {campaign.name!r} have {wanted}; a gold item must "
        "look like them"
    )


def _conditions(campaign: Campaign | None) -> list[ColumnElement[bool]]:
    name = "" if campaign is None else campaign.name
    taken = (
        select(items.c.prompt_id)
        .where((items.c.campaign == name) | ((items.c.kind == "gold") & (items.c.campaign == "")))
        .union(select(rankings.c.prompt_id).where(rankings.c.status == "active", rankings.c.campaign == name))
    )
    wanted: list[ColumnElement[bool]] = [responses.c.prompt_id.not_in(taken)]
    if campaign is not None:
        wanted += [prompts.c.split == campaign.split] if campaign.split else []
        wanted += [prompts.c.kind == campaign.kind] if campaign.kind else []
        wanted += [responses.c.model.in_(campaign.models)] if campaign.models else []
    return wanted


def _of_task(campaign: Campaign | None, prompt: str, answered: list[Row[*tuple[Any, ...]]], seed: int) -> list[str]:
    """The responses of one prompt that labelers see; equal texts are one response."""
    if campaign is not None and campaign.task == "policies":
        by_model = first_of_each(answered)
        return _distinct(list(by_model.values())) if len(by_model) == len(campaign.models) else []
    ids = _distinct(answered)
    if campaign is None or campaign.task != "ab" or len(ids) < 2:
        return ids[:MOST_RESPONSES]
    return sorted(random.Random(_drawn(seed, campaign, prompt)).sample(ids, 2), key=ids.index)  # noqa: S311


def first_of_each(answered: Sequence[Row[*tuple[Any, ...]]]) -> dict[str, Row[*tuple[Any, ...]]]:
    """The first response of each model: the items of a comparison of policies."""
    first: dict[str, Row[*tuple[Any, ...]]] = {}
    for row in answered:
        first.setdefault(row.model, row)
    return first


def _distinct(answered: Sequence[Row[*tuple[Any, ...]]]) -> list[str]:
    texts: dict[str, str] = {}
    for row in answered:
        texts.setdefault(row.text, row.id)
    return list(texts.values())


def _drawn(seed: int, campaign: Campaign, prompt: str) -> bytes:
    """A fixed random number for each prompt, so that later prompts change nothing."""
    return hashlib.sha256(repr((seed, campaign.name, prompt)).encode()).digest()


def _campaign(row: Row[*tuple[Any, ...]]) -> Campaign:
    models = tuple(json.loads(row.models))
    return Campaign(row.name, row.task, row.share, row.overlap, models, row.split, row.kind, row.most, row.state)
