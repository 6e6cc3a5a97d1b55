"""Exports with exactly the columns of other tools.

trl       prompt, chosen and rejected as lists of messages (an explicit prompt), margin if all have one
openrlhf  chosen and rejected as whole conversations (--chosen_key, --rejected_key and --apply_chat_template)
argilla   one record for each ranking: fields with the prompt and the responses, and a ranking question's answer
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from triphase.labeling.exchange.exporting import export_rows
from triphase.store import Store

TOOLS = ("argilla", "openrlhf", "trl")


def rows_for(tool: str, store: Store, left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    """The rows of an export for a tool; ``left_out`` counts the others, by reason."""
    if tool == "argilla":
        seen = Counter[str]()
        for row in export_rows(store, "rankings", left_out):
            name = f"{row['prompt_id']}-{row['labeler']}"
            seen[name] += 1  # a labeler may rank a prompt again, and one id is one record there
            yield _argilla(row, name if seen[name] == 1 else f"{name}-{seen[name]}")
        return
    every = list(export_rows(store, "comparisons", left_out))
    found = [row for row in every if row["purpose"] != "gold"]
    left_out.update({"pairs of gold items": len(every) - len(found)} if len(found) < len(every) else {})
    count = sum(row["margin"] is not None for row in found)
    margins = bool(found) and count == len(found)
    if count and not margins:
        left_out["margins that not every pair has"] += count
    for row in found:
        yield _trl(row, margins=margins) if tool == "trl" else _openrlhf(row, margins=margins)


def _trl(row: Mapping[str, Any], *, margins: bool) -> dict[str, Any]:
    made = {name: row[name] for name in ("prompt", "chosen", "rejected")}
    return {**made, "margin": row["margin"]} if margins else made


def _openrlhf(row: Mapping[str, Any], *, margins: bool) -> dict[str, Any]:
    made = {name: [*row["prompt"], *row[name]] for name in ("chosen", "rejected")}
    return {**made, "margin": row["margin"]} if margins else made


def _argilla(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    turns = row["prompt"]
    whole = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
    asked = turns[0]["content"] if len(turns) == 1 else whole
    names = [f"response-{number}" for number in range(1, len(row["responses"]) + 1)]
    order = [
        {"value": name, "rank": place} for name, place in zip(names, row["places"], strict=True) if place is not None
    ]
    return {
        "id": name,
        "fields": {"prompt": asked, **dict(zip(names, row["responses"], strict=True))},
        "responses": {"ranking": [{"value": order, "user_id": row["labeler"], "status": "submitted"}]},
        "metadata": {"prompt_id": row["prompt_id"], "kind": row["kind"], "split": row["split"]},
    }
