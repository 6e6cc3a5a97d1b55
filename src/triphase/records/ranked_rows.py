"""Rows with a ranking or a vote instead of chosen and rejected: the prompt, the responses, their places."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from triphase.records import cells, foreign, tool_exports
from triphase.records.cells import absent, columns_in
from triphase.records.columns import asked
from triphase.records.conversations import response_of
from triphase.records.lines import Row
from triphase.records.trees import is_tree, turns_of_tree
from triphase.records.types import Message, RankedAnswers

_BEST = re.compile("best|better|winner|choice|chosen|prefer|select|label(?!er)", re.I)
_UNRANKED = "responses without a place or rating"
_NATIVE = {"responses", "places", "response_a", "response_b", "winner", "model_a", "model_b", "models"}


@dataclass(frozen=True, slots=True)
class RankedRow:
    """A ranking of a row; ``row`` has its own columns (kind, split, labeler …)."""

    messages: tuple[Message, ...]
    answers: RankedAnswers
    row: Row


def rankings_in(row: Row) -> list[RankedRow] | None:
    """The rankings of a row; None if it has chosen and rejected, or no ranking at all."""
    have = columns_in(row)
    if have & {"chosen", "rejected"}:
        return None
    if is_tree(row):
        return _of_tree(row)
    found = tool_exports.read_export(row)
    if found is None:
        found = foreign.read_foreign(row)
    if found is None:
        kind = "votes" if {"response_a", "response_b", "winner"} <= have else "rankings" if "responses" in have else ""
        if not kind or not have & foreign.ASKED:
            return None
        found = [(kind, row)]
    made = [_vote(each) if kind == "votes" else _ranking(each) for kind, each in found]
    row.read.update(columns_in(row) - foreign.unread_columns(row), _NATIVE)
    tool_exports.note_unread_parts(row)
    if not made:
        row.refuse("has no submitted ranking; leave such records out (data.on_bad_record: drop)")
    return made


def pairs_of(answers: RankedAnswers) -> Iterator[tuple[str, str, bool]]:
    """Each two of the ranked texts as (better, other, whether they are tied)."""
    ordered = sorted(zip(answers.places, answers.texts, strict=True), key=lambda item: item[0])
    for (place, better), (below, other) in combinations(ordered, 2):
        yield better, other, place == below


def _ranking(row: Row) -> RankedRow:
    texts = cells.listed(row, "responses", row.values["responses"])
    said = [response_of(row, f"responses[{n}]", text) for n, text in enumerate(texts)]
    given = row.values.get("places")
    if absent(given):
        require_no_order(row, said)
    places = list(range(1, len(said) + 1)) if absent(given) else cells.listed(row, "places", given, len(said))
    return _checked(row, said, [None if absent(place) else cells.whole(row, f"places[{n}]", place, 1, cells.MOST_PLACE)
                                for n, place in enumerate(places)])  # fmt: skip


def require_no_order(row: Row, said: Sequence[Any], known: Collection[str] = ("responses", "models")) -> None:
    """Refuse a column that seems to order the responses under a name that is not known: they are read best first."""
    count = len(said)
    for name in columns_in(row).difference(known):
        value = cells.parsed(row.values[name])
        if isinstance(value, list) and len(value) == count and all(isinstance(each, int | float) for each in value):
            row.refuse(
                f"{name} is a list of {count} numbers, one for each response; if they are places, call it places (1 is "
                "the best), if they are ratings, scores; without it responses are read best first"
            )
        if _BEST.search(name) and (value in said or str(value) in map(str, range(count + 1))):
            row.refuse(
                f"{name} is {value!r:.40}; if that says which response is the best, write places for all of them "
                "(1 is the best), else leave the column out: without places responses are read best first"
            )


def _vote(row: Row) -> RankedRow:
    models = [str(row.values.get(f"model_{side}") or "") for side in "ab"]
    said = [response_of(row, f"response_{side}", row.values[f"response_{side}"]) for side in "ab"]
    return _checked(row, said, list(cells.winner(row, models)))


def _of_tree(row: Row) -> list[RankedRow]:
    made = []
    for turn in turns_of_tree(row):
        ranked = [(text, rank) for text, rank in zip(turn.replies, turn.ranks, strict=True) if rank is not None]
        if len(ranked) < len(turn.replies):
            row.ignored.add(_UNRANKED)
        if len({text for text, _ in ranked}) > 1:
            made.append(
                RankedRow(turn.asked, _answers([text for text, _ in ranked], [rank for _, rank in ranked]), row)
            )
    if not made:
        row.refuse("the tree has no turn with two ranked replies")
    return made


def _checked(row: Row, texts: list[str], places: list[int | None]) -> RankedRow:
    ranked = [(text, place) for text, place in zip(texts, places, strict=True) if place is not None]
    if len(ranked) < len(texts):
        row.ignored.add(_UNRANKED)
    if len(ranked) < 2:
        row.refuse(f"{len(ranked)} of {len(texts)} responses are ranked; at least two must be")
    answers = _answers([text for text, _ in ranked], [place for _, place in ranked])
    if len(answers.texts) < 2:
        row.refuse("all ranked responses are the same text")
    if len(answers.texts) < len(ranked):
        row.ignored.add("repeated responses (the best of their places counts)")
    return RankedRow(asked(row), answers, row)


def _answers(texts: list[str], places: list[int]) -> RankedAnswers:
    """Each text once, with the best of its places."""
    best: dict[str, int] = {}
    for text, place in zip(texts, places, strict=True):
        best[text] = min(place, best.get(text, place))
    return RankedAnswers(tuple(best), tuple(best.values()))
