"""A labeler's view: an item without names, their own past answers, their own progress."""

import json
from collections.abc import Sequence
from statistics import median
from typing import Any

from sqlalchemy import Connection, String, bindparam, func, or_, select

from triphase.labeling.web.formatting import formatted, may_be_formatted
from triphase.labeling.work.campaign_plan import campaign_called
from triphase.labeling.work.submission import latest_guideline
from triphase.records.visible import visible
from triphase.store.record_rows import answer_of
from triphase.store.schema import assignments, campaigns, guidelines, items, prompts, rankings, responses

_DAY = 86400.0
_SHOWN = (
    select(prompts.c.messages, responses.c.id, responses.c.text, responses.c.finished)
    .join(responses, responses.c.prompt_id == prompts.c.id)
    .where(prompts.c.id == bindparam("prompt", type_=String))
)


def shown(connection: Connection, prompt_id: str, order: Sequence[str]) -> dict[str, Any]:
    """The conversation and the responses in this order; no ids and no models."""
    rows = connection.execute(_SHOWN, {"prompt": prompt_id}).all()
    messages = json.loads(rows[0].messages)
    texts = {row.id: row for row in rows}
    return {
        "prompt": [{"role": role, "content": visible(content)} for role, content in messages],
        "responses": [{"text": visible(texts[id_].text), "finished": texts[id_].finished} for id_ in order],
    }


def task_of(connection: Connection, campaign: str) -> dict[str, Any] | None:
    """The settings of a campaign for the page, and the version of its guidelines; None for the main task."""
    if not campaign:
        return None
    found = campaign_called(connection, campaign)
    version = latest_guideline(connection, campaign)
    return {"campaign": campaign, "kind": found.task if found else "ranking", "guideline": version or 0}


def guidelines_for(connection: Connection, campaign: str) -> dict[str, Any]:
    """The newest guidelines of a campaign, or of the main task if it has none."""
    version = latest_guideline(connection, campaign)
    text = connection.execute(select(guidelines.c.text).where(guidelines.c.version == version)).scalar()
    return {"version": version or 0, "text": visible(text or "")}


def has_markup(item: dict[str, Any]) -> bool:
    """Whether a text of an item, as returned by ``shown``, could be Markdown."""
    return any(may_be_formatted(text) for text in _texts(item))


def with_blocks(item: dict[str, Any]) -> dict[str, Any]:
    """An item with the trees of its Markdown texts, as ``blocks`` next to the text; takes a while."""
    prompt = [_with_blocks(message, message["content"]) for message in item["prompt"]]
    return {**item, "prompt": prompt, "responses": [_with_blocks(one, one["text"]) for one in item["responses"]]}


def _texts(item: dict[str, Any]) -> list[str]:
    return [one["content"] for one in item["prompt"]] + [one["text"] for one in item["responses"]]


def _with_blocks(part: dict[str, Any], text: str) -> dict[str, Any]:
    blocks = formatted(text)
    return part if blocks is None else {**part, "blocks": blocks}


def past_answer(connection: Connection, labeler: str, back: int) -> dict[str, Any] | None:
    """An earlier answer as the page showed it; 0 is the last one."""
    query = (
        select(rankings)
        .where(rankings.c.labeler == labeler, rankings.c.status == "active", rankings.c.assignment_id.is_not(None))
        .order_by(rankings.c.submitted_at.desc(), rankings.c.id)
    )
    row = connection.execute(query.offset(back).limit(1)).first()
    if row is None:
        return None
    order, answer = json.loads(row.order_shown), answer_of(row)
    places, quality = answer.ranking.places, answer.quality
    return {
        "ranking": row.id,
        "task": task_of(connection, row.campaign),
        **shown(connection, row.prompt_id, order),
        "places": [places.get(id_) for id_ in order],
        "quality": [quality.get(id_) for id_ in order],
        "strength": row.strength,
        "note": row.note,
        "ratings": {name: [values.get(id_) for id_ in order] for name, values in answer.ratings.items()},
        "rationale": answer.rationale,
        "rewrites": [answer.rewrites.get(id_) for id_ in order],
        "seconds": row.seconds,
    }


def progress(connection: Connection, labeler: str, now: float) -> dict[str, Any]:
    """Own counts and speed, and how many slots are open to this labeler."""
    mine = (rankings.c.labeler == labeler, rankings.c.status == "active")
    done = connection.execute(select(func.count()).where(*mine)).scalar_one()
    today = connection.execute(
        select(func.count()).where(*mine, rankings.c.submitted_at >= now - now % _DAY)
    ).scalar_one()
    times = connection.execute(
        select(rankings.c.seconds)
        .where(*mine, rankings.c.seconds.is_not(None))
        .order_by(rankings.c.submitted_at.desc())
        .limit(100)
    ).scalars()
    known = [float(value) for value in times if value is not None]
    had = select(assignments.c.item_id).where(assignments.c.labeler == labeler)
    active = select(campaigns.c.name).where(campaigns.c.state == "active")
    open_items = (
        select(func.count(func.distinct(assignments.c.item_id)))
        .join(items)
        .where(or_(assignments.c.campaign == "", assignments.c.campaign.in_(active)))
        .where(assignments.c.state == "open", assignments.c.purpose == "label", assignments.c.item_id.not_in(had))
    )
    left = connection.execute(open_items).scalar_one()
    seconds = median(known) if known else None
    return {"done": done, "today": today, "left": left, "median_seconds": seconds}
