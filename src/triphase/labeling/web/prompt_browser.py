"""The samples browser: prompts with filters, and everything known about one prompt."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, String, cast, exists, func, or_, select

from triphase.records.types import Prompt, Response
from triphase.store.answers import StoredAnswer
from triphase.store.record_rows import answer_of, prompt_of, response_of
from triphase.store.schema import adjudications, flags, items, prompts, rankings, responses, scores

PAGE_SIZE = 25
_LONGEST_WORDS = 200


@dataclass(frozen=True, slots=True)
class Filters:
    """The lead's filters; empty means all."""

    text: str = ""
    split: str = ""
    kind: str = ""
    model: str = ""
    labeler: str = ""
    state: str = ""
    page: int = 0


@dataclass(frozen=True, slots=True)
class PromptLine:
    """One line of the browser."""

    prompt: Prompt
    responses: int
    rankings: int
    flags: int


@dataclass(frozen=True, slots=True)
class Detail:
    """Everything about one prompt."""

    prompt: Prompt
    responses: tuple[Response, ...]
    scores: dict[str, dict[str, float]]
    answers: tuple[StoredAnswer, ...]
    flags: tuple[Any, ...]
    decisions: tuple[Any, ...]
    gold: dict[str, dict[str, int]]
    """By campaign; the main task's name is empty."""
    campaigns: tuple[str, ...]
    """Those with an item for it, or with answers to it, the main task (empty) included."""


def samples(connection: Connection, filters: Filters) -> tuple[list[PromptLine], int]:
    """One page of prompts in their order, and their total number."""
    query = _filtered(select(prompts), filters)
    total = connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()
    found = connection.execute(
        query.order_by(prompts.c.position).limit(PAGE_SIZE).offset(PAGE_SIZE * filters.page)
    ).all()
    ids = [row.id for row in found]
    answered = _counts(connection, responses.c.prompt_id, ids)
    ranked = _counts(connection, rankings.c.prompt_id, ids, rankings.c.status == "active")
    flagged = _counts(connection, flags.c.prompt_id, ids)
    return [
        PromptLine(prompt_of(row), answered.get(row.id, 0), ranked.get(row.id, 0), flagged.get(row.id, 0))
        for row in found
    ], total


def choices(connection: Connection) -> dict[str, list[str]]:
    """The options of the filters."""
    return {
        "kinds": _distinct(connection, prompts.c.kind),
        "models": _distinct(connection, responses.c.model),
        "labelers": _distinct(connection, rankings.c.labeler),
    }


def detail(connection: Connection, prompt_id: str) -> Detail | None:
    """Everything about one prompt; None if there is no such prompt."""
    row = connection.execute(select(prompts).where(prompts.c.id == prompt_id)).first()
    if row is None:
        return None
    of = responses.c.prompt_id == prompt_id
    answered = connection.execute(select(responses).where(of).order_by(responses.c.position)).all()
    scored = connection.execute(select(scores).join(responses).where(of).order_by(scores.c.scorer)).all()
    given = connection.execute(
        select(rankings).where(rankings.c.prompt_id == prompt_id).order_by(rankings.c.submitted_at, rankings.c.id)
    ).all()
    asked = connection.execute(select(items).where(items.c.prompt_id == prompt_id).order_by(items.c.id)).all()
    by_response: dict[str, dict[str, float]] = {}
    for each in scored:
        by_response.setdefault(each.response_id, {})[each.scorer] = each.score
    return Detail(
        prompt_of(row),
        tuple(response_of(one) for one in answered),
        by_response,
        tuple(answer_of(one) for one in given),
        tuple(connection.execute(select(flags).where(flags.c.prompt_id == prompt_id).order_by(flags.c.id)).all()),
        tuple(
            connection.execute(
                select(adjudications).where(adjudications.c.prompt_id == prompt_id).order_by(adjudications.c.id)
            ).all()
        ),
        {one.campaign: json.loads(one.gold_places) for one in asked if one.kind == "gold"},
        tuple(dict.fromkeys([*(one.campaign for one in asked), *(one.campaign for one in given)])),
    )


def _filtered(query: Select[Any], filters: Filters) -> Select[Any]:
    of_prompt = responses.c.prompt_id == prompts.c.id
    ranked = exists().where(rankings.c.prompt_id == prompts.c.id, rankings.c.status == "active")
    if filters.text:
        pattern = "%" + filters.text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        in_response = exists().where(of_prompt, responses.c.text.ilike(pattern, escape="\\"))
        query = query.where(or_(cast(prompts.c.messages, String).ilike(pattern, escape="\\"), in_response))
    if filters.split:
        query = query.where(prompts.c.split == filters.split)
    if filters.kind:
        query = query.where(prompts.c.kind == filters.kind)
    if filters.model:
        query = query.where(exists().where(of_prompt, responses.c.model == filters.model))
    if filters.labeler:
        query = query.where(exists().where(rankings.c.prompt_id == prompts.c.id, rankings.c.labeler == filters.labeler))
    states = {
        "ranked": ranked,
        "not ranked": ~ranked,
        "flagged": exists().where(flags.c.prompt_id == prompts.c.id),
        "skipped": exists().where(rankings.c.prompt_id == prompts.c.id, rankings.c.status == "skipped"),
        "gold": exists().where(items.c.prompt_id == prompts.c.id, items.c.kind == "gold"),
    }
    return query.where(states[filters.state]) if filters.state in states else query


def _counts(connection: Connection, column: Any, ids: Sequence[str], *conditions: Any) -> dict[str, int]:
    query = select(column, func.count()).where(column.in_(ids), *conditions).group_by(column)
    return dict(connection.execute(query).all())


def _distinct(connection: Connection, column: Any) -> list[str]:
    found = connection.execute(select(column).distinct().order_by(column).limit(200)).scalars()
    return [value for value in found if value]


def first_words(connection: Connection, ids: Collection[str]) -> dict[str, str]:
    """The last message of each of these prompts, on one line and truncated: lists show it instead of an id."""
    rows = connection.execute(select(prompts.c.id, prompts.c.messages).where(prompts.c.id.in_(ids))).all()
    return {row.id: " ".join(json.loads(row.messages)[-1][1][:_LONGEST_WORDS].split()) for row in rows}
