"""Rankings in the formats of other tools and data sets, converted to rows of our own formats.

    UltraFeedback      instruction, completions: objects with response, model and fine-grained_score (or overall_score)
    Nectar             prompt, answers: objects with answer, model and rank
    lists of objects   likewise, in responses, completions, answers, generations or candidates; by rank or by a rating
        parallel lists     the texts in one of these columns, and ranks, ratings or scores
    Chatbot Arena      conversation_a, conversation_b, winner; prompt, response_a, response_b, winner_model_a,
                       winner_model_b, winner_tie (lists of turns as text)
    SHP                history, human_ref_A, human_ref_B, labels (1: A is preferred, 0: B)
    WebGPT             question, answer_0, answer_1, score_0, score_1
    HelpSteer2, 3      response_1, response_2, preference_strength; context, response1, response2, overall_preference
    PKU-SafeRLHF       prompt, response_0, response_1, better_response_id

The exports of labeling tools are in ``tool_exports``.
Equal ratings are ties; a response without one is not ranked.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from triphase.records import cells
from triphase.records.cells import absent, columns_in, parsed
from triphase.records.lines import Row, is_blank

ASKED = {"prompt", "messages", "conversations", "instruction", "question", "query", "input", "context", "system",
         "system_prompt", "history"}  # fmt: skip
"""The columns of a prompt; ``records.columns`` decides which of them are read."""
LISTS = ("responses", "completions", "answers", "generations", "candidates", "outputs")
_TEXTS = ("response", "answer", "text", "content", "completion", "output", "generation")
_BY_PLACE = ("rank", "place")
_BY_RATING = ("fine-grained_score", "overall_score", "rating", "score", "overall_rating")
_PLACES_BESIDE = ("ranks", "rank", "ranking", "rankings")
_RATINGS_BESIDE = ("ratings", "rating", "scores", "score", "rewards", "reward", "helpfulness")
RATED = (*_PLACES_BESIDE, *_RATINGS_BESIDE)
"""Columns that order the texts in a list next to them."""
_KEPT = ("labeler", "submitted_at", "seconds", "note", "margin", "prompt_id", "kind", "split", "gold")
Rows = Iterator[tuple[str, Row]]
"""Rows with the format of each."""


def read_foreign(row: Row) -> list[tuple[str, Row]] | None:
    """The rows in our formats from a row of another tool; None if it has no known shape."""
    have = columns_in(row)
    for needed, convert in _PAIRS:
        if needed <= have:
            return list(convert(row))
    for column in LISTS:
        value = parsed(row.values.get(column))
        if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
            if len(value) > 1 and any(_text_key(each) for each in value):
                return list(_objects(row, column, value))
        elif isinstance(value, list) and "places" not in have:
            beside = next((name for name in RATED if name in have), None)
            if beside is not None:
                return list(_side_by_side(row, column, value, beside))
    return None


def unread_columns(row: Row) -> set[str]:
    """Columns of a row of another tool that no shape reads."""
    have = columns_in(row)
    pairs = {name for needed, _ in _PAIRS if needed <= have for name in needed}
    return have - row.read - {
        *_KEPT, *pairs, "models", "generation_models", "data", "annotations", "fields", "status",
    } | row.ignored  # fmt: skip


def derived(row: Row, values: Mapping[str, Any]) -> Row:
    """A row of other columns at the same location of the file; values independent of the shape are copied."""
    kept = {name: row.values[name] for name in _KEPT if not absent(row.values.get(name))}
    return replace(row, values={**kept, **values})


def prompt_in(row: Row, values: Mapping[str, Any], beside: Sequence[str] = ()) -> dict[str, Any]:
    """The columns of the prompt, to be read like those of any prompt; or the only text that is not a response."""
    found = {
        name: value for name, value in values.items() if name in ASKED and name not in beside and not absent(value)
    }
    question = parsed(found.get("question"))
    if isinstance(question, Mapping):  # WebGPT
        found["question"] = question.get("full_text")
    if found.keys() - {"input", "context", "system", "system_prompt", "history"}:
        return found
    if "context" in found:  # HelpSteer3
        context = found.pop("context")
        row.read.add("context")
        return {**found, "prompt": context}
    others = [name for name, value in values.items() if isinstance(value, str) and value and name not in beside]
    if len(others) == 1:
        row.read.add(others[0])
        return {**found, "prompt": values[others[0]]}
    row.refuse(f"which column is the prompt? Found {cells.named(values)}; rename it to prompt")


def places_by(ratings: Sequence[float | None]) -> list[int | None]:
    """Places from ratings: the highest has place 1, equal ones share it; without a rating, no place."""
    order = sorted({rating for rating in ratings if rating is not None}, reverse=True)
    return [None if rating is None else order.index(rating) + 1 for rating in ratings]


def _text_key(item: Mapping[str, Any]) -> str | None:
    return next((name for name in _TEXTS if not absent(item.get(name))), None)


def _objects(row: Row, column: str, items: Sequence[Mapping[str, Any]]) -> Rows:
    """Answers as objects, each with its text, its model, and its rank or rating."""
    texts, models = [], []
    order = _order_of(items)
    row.read.add(column)
    for n, item in enumerate(items):
        key = _text_key(item)
        if key is None:
            row.refuse(f"{column}[{n}] has no text; expected one of {', '.join(_TEXTS)}, found {cells.named(item)}")
        texts.append(item[key])
        models.append(item.get("model"))
        unread = {str(name) for name, value in item.items() if not is_blank(value)} - {key, "model", order}
        row.ignored.update(f"{column}[].{name}" for name in unread)
    places = _places_of(row, column, items, order)
    asked = prompt_in(row, row.values, (column,))
    yield "rankings", derived(row, {**asked, "responses": texts, "models": models, "places": places})


def _order_of(items: Sequence[Mapping[str, Any]]) -> str | None:
    """The key that orders the answers: a place, or the first rating that one of them has."""
    return next((name for name in _BY_PLACE if any(not absent(item.get(name)) for item in items)), None) or next(
        (name for name in _BY_RATING if any(_rated(item.get(name)) for item in items)), None
    )


def _places_of(row: Row, column: str, items: Sequence[Mapping[str, Any]], order: str | None) -> list[int | None]:
    if order in _BY_PLACE:
        return [
            None if absent(item.get(order))
            else cells.whole(row, f"{column}[{n}].{order}", item[order], 1, cells.MOST_PLACE)
            for n, item in enumerate(items)
        ]  # fmt: skip
    if order is not None:
        return places_by([_rating(row, f"{column}[{n}].{order}", item.get(order)) for n, item in enumerate(items)])
    found = cells.named(sorted({str(key) for item in items for key in item}))
    row.refuse(
        f"{column} has answers without an order: expected rank or place, or one of {', '.join(_BY_RATING)}; found "
        f"{found}"
    )


def _side_by_side(row: Row, column: str, texts: Sequence[Any], beside: str) -> Rows:
    """Answers in one list and their ranks or ratings in another."""
    row.read.update((column, beside))
    given = cells.listed(row, beside, row.values[beside], len(texts))
    if beside in _PLACES_BESIDE:
        places = [None if absent(each) else each for each in given]
    else:
        places = places_by([_rating(row, f"{beside}[{n}]", each) for n, each in enumerate(given)])
    values = {**prompt_in(row, row.values, (column, beside)), "responses": list(texts), "places": places}
    models = next((row.values[name] for name in ("models", "generation_models") if name in columns_in(row)), None)
    yield "rankings", derived(row, values if models is None else {**values, "models": models})


def _rated(value: Any) -> bool:
    """Whether there is a rating; UltraFeedback writes N/A if there is none."""
    return not absent(value) and value != "N/A"


def _rating(row: Row, name: str, value: Any) -> float | None:
    return cells.number(row, name, value, least=-1e11) if _rated(value) else None


# --- Two responses ------------------------------------------------------------------------------------------------


def _pair(row: Row, columns: tuple[str, str], first: float, *, strength: int | None = None, model: str = "") -> Rows:
    """A vote for the first response (``first`` above 0), for the second (below), or for neither."""
    winner = "a" if first > 0 else "b" if first < 0 else "tie"
    values = {
        **prompt_in(row, row.values, columns), "response_a": row.values[columns[0]],
        "response_b": row.values[columns[1]], "winner": winner, "strength": strength,
        "model_a": model, "model_b": model,
    }  # fmt: skip
    yield "votes", derived(row, values)


def _arena(row: Row) -> Rows:
    """Two conversations that differ in their last answer; the winner is a model."""
    first, second = (cells.listed(row, f"conversation_{side}", row.values[f"conversation_{side}"]) for side in "ab")
    if not first or not second or first[:-1] != second[:-1]:
        row.refuse(
            "conversation_a and conversation_b diverge before the last answer; only conversations of one turn, or with "
            "the same turns before it, are compared: leave such records out (data.on_bad_record: drop)"
        )
    row.read.add("judge")
    values = {
        "prompt": first[:-1],
        "response_a": first[-1],
        "response_b": second[-1],
        "labeler": row.values.get("judge"),
    }
    yield "votes", derived(row, {**values, **{name: row.values.get(name) for name in ("winner", "model_a", "model_b")}})


_ARENA_WINNERS = {"winner_model_a": "a", "winner_model_b": "b", "winner_tie": "tie"}


def _arena_table(row: Row) -> Rows:
    """Turns as lists in text, and one column of 0 and 1 for each outcome."""
    turns = {name: cells.listed(row, name, row.values[name]) for name in ("prompt", "response_a", "response_b")}
    if any(len(texts) != 1 for texts in turns.values()):
        row.refuse(
            "has several turns, each with two answers; only the answers to one prompt are compared: leave such records "
            "out (data.on_bad_record: drop)"
        )
    won = [said for name, said in _ARENA_WINNERS.items() if cells.truth(row, name, row.values[name])]
    if len(won) != 1:
        row.refuse(f"one of {', '.join(_ARENA_WINNERS)} must be 1, not {len(won)} of them")
    row.read.update(_ARENA_WINNERS)
    models = {name: row.values.get(name) for name in ("model_a", "model_b")}
    yield "votes", derived(row, {**{name: texts[0] for name, texts in turns.items()}, **models, "winner": won[0]})


def _shp(row: Row) -> Rows:
    first = cells.whole(row, "labels", row.values["labels"], 0, 1)
    asked = {name: value for name, value in row.values.items() if name not in ASKED}
    given = replace(row, values={**asked, "prompt": row.values["history"]})
    return _pair(given, ("human_ref_A", "human_ref_B"), 1 if first else -1, model="human")


def _webgpt(row: Row) -> Rows:
    scores = [cells.number(row, name, row.values[name], least=-1e11) for name in ("score_0", "score_1")]
    return _pair(row, ("answer_0", "answer_1"), scores[0] - scores[1])


def _steered(columns: tuple[str, str], judge: str) -> Callable[[Row], Rows]:
    """HelpSteer: below 0 the first is better; the size is a strength, not a margin of scores."""

    def convert(row: Row) -> Rows:
        strength = cells.whole(row, judge, row.values[judge], -4, 4)
        return _pair(row, columns, -strength, strength=abs(strength) or None)

    return convert


def _safe(row: Row) -> Rows:
    better = cells.whole(row, "better_response_id", row.values["better_response_id"], 0, 1)
    return _pair(row, ("response_0", "response_1"), -1 if better else 1)


_PAIRS: tuple[tuple[set[str], Callable[[Row], Iterable[tuple[str, Row]]]], ...] = (
    ({"conversation_a", "conversation_b", "winner"}, _arena),
    ({"prompt", "response_a", "response_b", *_ARENA_WINNERS}, _arena_table),
    ({"history", "human_ref_A", "human_ref_B", "labels"}, _shp),
    ({"answer_0", "answer_1", "score_0", "score_1"}, _webgpt),
    (
        {"response_1", "response_2", "preference_strength"},
        _steered(("response_1", "response_2"), "preference_strength"),
    ),
    ({"response1", "response2", "overall_preference"}, _steered(("response1", "response2"), "overall_preference")),
    ({"response_0", "response_1", "better_response_id"}, _safe),
)
