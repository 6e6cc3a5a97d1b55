"""Fills in what a file leaves open about its prompts and responses, from its other rows and from the store."""

from dataclasses import replace

from sqlalchemy import Connection, select

from triphase.labeling.exchange.formats import Records
from triphase.records.types import Prompt, Response
from triphase.store.schema import prompts, responses

_CHUNK = 500


def settled_prompts(connection: Connection, records: Records) -> list[Prompt]:
    """The prompts, with the kind and the split that another row or the store gives if a row has none."""
    said: dict[tuple[str, str], str] = {}
    for prompt in records.prompts:
        for name in {"kind", "split"} - records.unsaid.get(prompt, frozenset()):
            said.setdefault((prompt.id, name), getattr(prompt, name))
    asked = sorted({prompt.id for prompt, names in records.unsaid.items() if names})
    for start in range(0, len(asked), _CHUNK):
        query = select(prompts.c.id, prompts.c.kind, prompts.c.split).where(
            prompts.c.id.in_(asked[start : start + _CHUNK])
        )
        for row in connection.execute(query):
            said.setdefault((row.id, "kind"), row.kind)
            said.setdefault((row.id, "split"), row.split)
    return [
        replace(prompt, **{
            name: said[prompt.id, name]
            for name in records.unsaid.get(prompt, ()) if (prompt.id, name) in said
        })  # type: ignore[arg-type]
        for prompt in records.prompts
    ]  # fmt: skip


def settled_responses(connection: Connection, records: Records) -> list[Response]:
    """The responses without those that are known better: from another row, or in the store, with their ending."""
    said = {one.id: one for one in records.responses if one.id not in records.assumed}
    asked = sorted(records.assumed - said.keys())
    for start in range(0, len(asked), _CHUNK):
        query = select(responses).where(responses.c.id.in_(asked[start : start + _CHUNK]))
        said |= {row.id: Response(row.id, row.prompt_id, row.text, row.model) for row in connection.execute(query)}
    kept = []
    for one in records.responses:
        better = said.get(one.id) if one.id in records.assumed else None
        if better is None or (better.prompt_id, better.text, better.model) != (one.prompt_id, one.text, one.model):
            kept.append(one)
    return kept
