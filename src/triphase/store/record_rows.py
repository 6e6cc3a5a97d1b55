"""Conversion between records and rows: the only module that knows the format of records in the tables."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from triphase.records.types import Message, Prompt, Ranking, Response
from triphase.store.answers import StoredAnswer


def as_json(value: object) -> str:
    """JSON without spaces, with sorted keys: equal values give equal text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def storable(text: str) -> str:
    """The text with what no database stores (NUL, unpaired surrogates) replaced by U+FFFD."""
    if "\0" not in text and text.isprintable():
        return text
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def prompt_row(prompt: Prompt) -> dict[str, Any]:
    """The columns of a prompt, without its position."""
    messages = as_json([[message.role, storable(message.content)] for message in prompt.messages])
    return {"id": prompt.id, "messages": messages, "kind": prompt.kind, "split": prompt.split}


def prompt_of(row: Row[Any]) -> Prompt:
    """The prompt in a row of ``prompts``."""
    messages = tuple(Message(role, content) for role, content in json.loads(row.messages))
    return Prompt(row.id, messages, row.kind, row.split)


def response_row(response: Response) -> dict[str, Any]:
    """The columns of a response, without its position."""
    row = {name: getattr(response, name) for name in ("id", "prompt_id", "model", "finished", "seed")}
    return {**row, "text": storable(response.text)}


def response_of(row: Row[Any]) -> Response:
    """The response in a row of ``responses``."""
    return Response(row.id, row.prompt_id, row.text, row.model, row.finished, row.seed)


def answer_row(answer: StoredAnswer) -> dict[str, Any]:
    """The columns of an answer."""
    ranking = answer.ranking
    return {
        "id": ranking.id,
        "prompt_id": ranking.prompt_id,
        "assignment_id": answer.assignment_id,
        "purpose": answer.purpose,
        "status": answer.status,
        "labeler": ranking.labeler,
        "places": as_json(dict(ranking.places)),
        "order_shown": as_json(list(ranking.order_shown)),
        "submitted_at": float(ranking.submitted_at),
        "seconds": ranking.seconds,
        "note": storable(ranking.note),
        "guideline_version": answer.guideline_version,
        "strength": answer.strength,
        "margin": answer.margin,
        "quality": as_json(dict(answer.quality)) if answer.quality else None,
        "skip_reason": answer.skip_reason,
        "ratings": as_json({name: dict(each) for name, each in answer.ratings.items()}) if answer.ratings else None,
        "rationale": storable(answer.rationale) or None,
        "rewrites": as_json({id_: storable(text) for id_, text in answer.rewrites.items()})
        if answer.rewrites
        else None,
        "campaign": answer.campaign,
    }


def ranking_of(row: Row[Any]) -> Ranking:
    """The ranking in a row of ``rankings``."""
    places: Mapping[str, int] = json.loads(row.places)
    order = tuple(json.loads(row.order_shown))
    return Ranking(row.id, row.prompt_id, row.labeler, places, order, row.submitted_at, row.seconds, row.note)


def answer_of(row: Row[Any]) -> StoredAnswer:
    """The answer in a row of ``rankings``."""
    return StoredAnswer(
        ranking=ranking_of(row),
        purpose=row.purpose,
        status=row.status,
        assignment_id=row.assignment_id,
        guideline_version=row.guideline_version,
        strength=row.strength,
        margin=row.margin,
        quality=json.loads(row.quality) if row.quality else {},
        skip_reason=row.skip_reason,
        ratings=json.loads(row.ratings) if row.ratings else {},
        rationale=row.rationale or "",
        rewrites=json.loads(row.rewrites) if row.rewrites else {},
        campaign=row.campaign,
    )
