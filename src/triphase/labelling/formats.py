"""The files that ``label import`` understands, told apart by their columns, one row to records at a time.

    store        type (prompt, response, ranking …), as ``label export --format store`` writes it
    rankings     responses (texts, best first) or responses + places (1 the best, equal is a tie, null not ranked)
    votes        response_a + response_b + winner (a, b or tie)
    preferences  chosen + rejected: TRL explicit or implicit prompt, HH-RLHF transcripts (see ``records.reading``)
    responses    prompt + response, by the model in ``model``
    prompts      prompt or messages alone

Optional in rankings and votes: ``labeler``, ``submitted_at``, ``seconds``, ``note``, ``models``, ``prompt_id``,
``kind``, ``split``, ``margin``; in rankings ``gold`` (true: a known answer that measures labelers).
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from triphase.records.conversations import checked_prompt, messages_of, response_of, text_of
from triphase.records.identity import prompt_id, split_of
from triphase.records.lines import Row
from triphase.records.types import Prompt, Ranking, Response
from triphase.store.answers import Answer
from triphase.store.beside import TABLES
from triphase.store.identity import ranking_id, response_id

IMPORTED = "imported"
STORED = ("prompt", "response", "ranking", "gold", *TABLES)
_WINNERS = {
    "a": (1, 2), "model_a": (1, 2), "response_a": (1, 2), "0": (1, 2),
    "b": (2, 1), "model_b": (2, 1), "response_b": (2, 1), "1": (2, 1),
    "tie": (1, 1), "both": (1, 1), "tie (bothbad)": (1, 1),
}  # fmt: skip
_COLUMNS = {
    "rankings": {
        "prompt", "messages", "responses", "places", "models", "labeler", "submitted_at", "seconds", "note", "margin",
        "prompt_id", "kind", "split", "gold",
    },
    "votes": {
        "prompt", "messages", "response_a", "response_b", "winner", "model_a", "model_b", "labeler", "submitted_at",
        "seconds", "note", "margin", "prompt_id", "kind", "split",
    },
    "responses": {"prompt", "messages", "response", "model", "finished", "seed", "prompt_id", "kind", "split"},
}  # fmt: skip


@dataclass(slots=True)
class Records:
    """What a row holds."""

    prompts: list[Prompt] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    gold: list[tuple[str, dict[str, int]]] = field(default_factory=list)
    beside: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)


def format_of(row: Row) -> str:
    """Which of the formats a row is of; an error with the nearest name where it is none."""
    have = {name for name, value in row.values.items() if value is not None}
    if "type" in have:
        return "store"
    for name, needed in (
        ("rankings", {"responses"}),
        ("votes", {"response_a", "response_b"}),
        ("preferences", {"chosen", "rejected"}),
        ("responses", {"response"}),
    ):
        if needed <= have:
            return name
    if have & {"prompt", "messages", "conversations", "instruction"}:
        return "prompts"
    known = ["type", "responses", "response_a", "chosen", "rejected", "response", "prompt", "messages"]
    near = [(name, found[0]) for name in sorted(have) if (found := difflib.get_close_matches(name, known, 1))]
    hint = f"; is {near[0][0]!r} meant to be {near[0][1]!r}?" if near else ""
    row.refuse(f"the columns {', '.join(sorted(have))[:200] or '(none)'} are of no known format{hint}")


def ignored_columns(row: Row, kind: str) -> set[str]:
    """Columns of a row that are not read."""
    return {name for name in row.values if kind in _COLUMNS and name not in _COLUMNS[kind]}


def ranked_list(row: Row, heldout_share: float, seen: dict[object, int]) -> Records:
    """A row of ``rankings``."""
    texts = row.values["responses"]
    if not isinstance(texts, list) or not 2 <= len(texts):
        row.refuse("responses must be a list of at least two texts")
    prompt = _prompt(row, heldout_share)
    models = row.values.get("models") or [IMPORTED] * len(texts)
    if not isinstance(models, list) or len(models) != len(texts):
        row.refuse(f"models must be a list of {len(texts)} names, one for each response")
    made = [_response(row, prompt, f"responses[{n}]", text, str(models[n])) for n, text in enumerate(texts)]
    places = row.values.get("places")
    if places is None:
        places = list(range(1, len(texts) + 1))
    if not isinstance(places, list) or len(places) != len(texts):
        row.refuse(f"places must be a list of {len(texts)} numbers, one for each response")
    return _ranked(row, prompt, made, places, seen)


def vote(row: Row, heldout_share: float, seen: dict[object, int]) -> Records:
    """A row of ``votes``."""
    prompt = _prompt(row, heldout_share)
    winner = str(row.values.get("winner", "")).strip().lower()
    if winner not in _WINNERS:
        row.refuse(f"winner is {winner[:40]!r}; write a, b or tie")
    made = [
        _response(
            row, prompt, f"response_{side}", row.values[f"response_{side}"], _name(row, f"model_{side}", IMPORTED)
        )
        for side in "ab"
    ]
    return _ranked(row, prompt, made, list(_WINNERS[winner]), seen)


def answered(row: Row, heldout_share: float, seen: dict[object, int]) -> Records:
    """A row of ``responses``."""
    prompt = _prompt(row, heldout_share)
    model = _name(row, "model", IMPORTED)
    text = response_of(row, "response", row.values["response"])
    finished, seed = row.values.get("finished", True), row.values.get("seed")
    if not isinstance(finished, bool):
        row.refuse("finished must be true or false")
    if seed is not None and not isinstance(seed, int):
        row.refuse("seed must be a whole number")
    index = _occurrence(seen, (prompt.id, model, text))
    id_ = response_id(prompt.id, model, index, text)
    return Records([prompt], [Response(id_, prompt.id, text, model, finished, seed)])


def _ranked(row: Row, prompt: Prompt, made: list[Response], places: list[Any], seen: dict[object, int]) -> Records:
    ranked: dict[str, int] = {}
    for response, place in zip(made, places, strict=True):
        if response.id in ranked:
            row.refuse(f"the response {response.text[:40]!r} stands twice; name each response once")
        if place is None:
            continue
        if isinstance(place, bool) or not isinstance(place, int) or place < 1:
            row.refuse(f"the place {place!r} is none; places are whole numbers from 1, or null")
        ranked[response.id] = place
    if row.values.get("gold"):
        return Records([prompt], made, gold=[(prompt.id, ranked)])
    if not ranked:
        row.refuse("no response has a place")
    labeler = _name(row, "labeler", IMPORTED)
    margin = _number(row, "margin")
    index = _occurrence(seen, (prompt.id, labeler, tuple(sorted(ranked.items()))))
    ranking = Ranking(
        id=ranking_id(prompt.id, labeler, index, [sorted(ranked.items()), margin]),
        prompt_id=prompt.id,
        labeler=labeler,
        places=ranked,
        order_shown=(),
        submitted_at=_number(row, "submitted_at") or 0.0,
        seconds=_number(row, "seconds"),
        note=str(row.values.get("note") or ""),
    )
    return Records([prompt], made, [Answer(ranking, margin=margin)])


def _prompt(row: Row, heldout_share: float) -> Prompt:
    column = "prompt" if row.values.get("prompt") is not None else "messages"
    if row.values.get(column) is None:
        row.refuse("missing column: prompt (text or messages)")
    messages = checked_prompt(row, column, messages_of(row, column, row.values[column]))
    split = _name(row, "split", split_of(messages, heldout_share))
    if split not in ("train", "heldout"):
        row.refuse(f"split is {split[:40]!r}; write train or heldout, or leave it out")
    name = _name(row, "prompt_id", prompt_id(messages))
    return Prompt(name, messages, _name(row, "kind", ""), "train" if split == "train" else "heldout")


def _response(row: Row, prompt: Prompt, column: str, value: Any, model: str) -> Response:
    text = response_of(row, column, value)
    return Response(response_id(prompt.id, model, 0, text), prompt.id, text, model)


def _name(row: Row, column: str, default: str) -> str:
    value = row.values.get(column)
    if value is None or value == "":
        return default
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text_of(row, column, value)


def _number(row: Row, column: str) -> float | None:
    value = row.values.get(column)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        row.refuse(f"{column} must be a number of at least 0, not {str(value)[:40]!r}")
    return float(value)


def _occurrence(seen: dict[object, int], key: object) -> int:
    """How often ``key`` came before in this file: equal rows stay apart, and importing a file again adds nothing."""
    seen[key] = seen.get(key, -1) + 1
    return seen[key]


def stored(row: Row) -> Mapping[str, Any]:
    """A row of ``store``, its type checked."""
    if row.values["type"] not in STORED:
        row.refuse(f"type is {str(row.values['type'])[:40]!r}; it is one of {', '.join(STORED)}")
    return row.values
