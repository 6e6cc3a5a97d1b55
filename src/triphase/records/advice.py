"""Advice on a row that lacks a column: rename one, or convert a data set of a known format."""

import difflib
import json
import re
from collections.abc import Sequence
from itertools import islice
from typing import Literal, NoReturn

from triphase.records.cells import parsed
from triphase.records.foreign import LISTS
from triphase.records.lines import Row, is_blank
from triphase.settings.data import OURS

Purpose = Literal["demonstrations", "prompts", "preferences"]
_SHOWN = 200
_ALIKE = 0.6
_MOST_COLUMNS = 100
_ABOUT = re.compile(r"(?:model|rating|score|id|name|type|tokens|length|count)s?$")
"""Columns about a text, not the text."""
_PARTS = ("response", "answer", "completion", "text")
_READ = {"prompt", "messages", "conversations", "instruction", "question", "query", "input", "context", "completion",
         "response", "output", "answer", "instances", "chosen", "rejected", "system", "history", "id", "prompt_id",
         "kind", "split", "margin", "labeler"}  # fmt: skip
_ABOUT_OURS = {"chosen_finished", "rejected_finished", "margin", "labeler", "id", "prompt_id", "kind", "split"}
OF_TEXTS = tuple(name for name in OURS if name not in _ABOUT_OURS)
"""Our columns that hold texts, or order them."""
_RATINGS, _ANSWERS = {"helpfulness", "rating", "score"}, {"response", "completion", "answer", "output"}
_QUESTIONS = {"instruction", "question", "query"}
_RANKED = (
    "rated or ranked answers need a rank or a rating for each (docs/data.md), or write prompt, chosen and rejected"
)
_COMPARED: Sequence[tuple[set[str], str]] = (
    (
        {"completion", "label"},
        "single judged answers (KTO) are not comparisons: write prompt, chosen, rejected",
    ),
    ({"completions"}, _RANKED),
    ({"answers"}, _RANKED),
    ({"responses"}, _RANKED),
    ({"response_a", "response_b"}, "votes need a winner: a, b or tie"),
    ({"response_0", "response_1"}, "votes need better_response_id: 0 or 1"),
    ({"response_1", "response_2"}, "votes need preference_strength: below 0 if the first is better"),
    ({"response1", "response2"}, "votes need overall_preference: below 0 if the first is better"),
    ({"answer_0", "answer_1"}, "votes need score_0 and score_1"),
    ({"human_ref_A", "human_ref_B"}, "votes need history, and labels: 1 if A is better, else 0"),
    ({"conversation_a", "conversation_b"}, "votes need a winner: model_a, model_b or tie"),
    ({"summaries", "choice"}, "two summaries and a choice: write the post as prompt, the chosen one and the rejected"),
    ({"completion"}, "one answer per row is not a comparison: such files belong under data.demonstrations"),
    ({"response"}, "one answer per row is not a comparison: such files belong under data.demonstrations"),
)
_SUMMARY = "a text and its summary: write the request (Summarize: …) as prompt, and the summary as completion"
_SHOWN_TO: Sequence[tuple[set[str], str]] = (
    ({"chosen", "rejected"}, "comparisons: such files belong under data.preferences"),
    ({"response_a", "response_b"}, "votes: such files belong under data.preferences"),
    ({"conversation_a", "conversation_b"}, "votes: such files belong under data.preferences"),
    ({"summary"}, _SUMMARY),
    ({"highlights"}, _SUMMARY),
    ({"tldr"}, _SUMMARY),
    ({"summaries"}, _SUMMARY),
    ({"completions"}, "several answers per row: write the best one as completion, or rank them under data.preferences"),
    ({"answers"}, "several answers per row: write the best one as completion, or rank them under data.preferences"),
    ({"responses"}, "several answers per row: write the best one as completion, or rank them under data.preferences"),
    ({"text", "label"}, "text and a label are not a demonstration: write prompt and completion"),
)
_ASKED: Sequence[tuple[set[str], str]] = (
    ({"conversation_a", "conversation_b"}, "votes: write the first message as prompt, or rank under data.preferences"),
    ({"text"}, "rename text to prompt"),
    ({"post"}, "write the request, with the post in it, as prompt"),
    ({"document"}, "write the request, with the document in it, as prompt"),
    ({"article"}, "write the request, with the article in it, as prompt"),
    ({"summary"}, "write the request, with the text in it, as prompt"),
)
_KNOWN = {"demonstrations": (*_SHOWN_TO, *_ASKED[1:]), "prompts": _ASKED, "preferences": _COMPARED}


def missing(row: Row, purpose: Purpose, wanted: str, *names: str) -> NoReturn:
    """Refuse a row that lacks ``wanted``: with the columns that it has, and the remedy if it is known."""
    found = [f"{column} ({_emptiness(value)})" if is_blank(value) else str(column)
             for column, value in row.values.items()]  # fmt: skip
    hint = _other_case(row) or _shape(row, purpose) or _renaming(row, names)
    row.refuse(f"missing column: {wanted}; found {', '.join(found)[:_SHOWN] or 'none'}{hint}")


def _emptiness(value: object) -> str:
    return "null" if value is None else "empty"


def names_in_another_case(row: Row) -> dict[str, str]:
    """Nonempty columns that differ by case or spaces alone from one that holds texts, by our name."""
    filled = [str(column) for column, value in row.values.items() if not is_blank(value) and len(str(column)) <= _SHOWN]
    plain = {column.strip().casefold(): column for column in filled[:_MOST_COLUMNS]}
    return {ours: theirs for ours, theirs in plain.items() if ours in OF_TEXTS and ours not in filled}


def _other_case(row: Row) -> str:
    found = names_in_another_case(row)
    if not found:
        return ""
    shown = {ours: theirs if theirs.isidentifier() else json.dumps(theirs) for ours, theirs in found.items()}
    renamed = ", ".join(f"{theirs} to {ours}" for ours, theirs in shown.items())
    columns = ", ".join(f"{ours}: {theirs}" for ours, theirs in shown.items())
    return f"; rename {renamed}, or set columns: {{{columns}}}"


def _renaming(row: Row, names: Sequence[str]) -> str:
    filled = (str(column) for column, value in row.values.items() if not is_blank(value) and len(str(column)) <= _SHOWN)
    plain = {column.strip().casefold(): column for column in islice(filled, _MOST_COLUMNS)}
    if "prompt" in names and "input" in plain:
        return "; rename input to prompt?"
    for name in names:
        for part in _PARTS:
            if f"{name}_{part}" in plain:
                return f"; rename {plain[f'{name}_{part}']} to {name}?"
    likely = [
        (difflib.SequenceMatcher(None, name, near).ratio(), column, name)
        for near, column in plain.items()
        if column not in _READ and not _ABOUT.search(near)
        for name in names
    ]
    likeness, column, name = max(likely, default=(0.0, "", ""))
    if likeness < _ALIKE:
        return ""
    return f"; rename {column if column.isidentifier() else repr(column)[:60]} to {name}?"


def _shape(row: Row, purpose: Purpose) -> str:
    have = {str(column) for column, value in row.values.items() if not is_blank(value)}
    if purpose == "preferences" and have & {"chosen", "rejected"}:
        return ""
    if purpose == "preferences" and (few := _too_few(row)):
        return few
    if purpose == "preferences" and have & _RATINGS and have & _ANSWERS and (asked := have & _QUESTIONS):
        return f"; answers with a rating each are compared if their prompt is in prompt: rename {min(asked)} to prompt"
    if purpose == "demonstrations" and isinstance(row.values.get("label"), str):
        return "; label holds text: rename it to completion"
    return next((f"; {words}" for columns, words in _KNOWN[purpose] if columns <= have), "")


def _too_few(row: Row) -> str:
    for name in LISTS:
        value = parsed(row.values.get(name))
        if isinstance(value, list) and len(value) < 2:
            return (
                f"; {name} has {len(value) or 'no'} answer, and a ranking at least two: leave such records out "
                "(data.on_bad_record: drop)"
            )
    return ""


def require_wanted(row: Row) -> None:
    """Refuse a demonstration that is marked as undesirable: ``label`` false, as in KTO data, or 0.

    A 0 may also be a class or a rating. Learning what nobody wants is the worse mistake, so it is refused too.
    """
    label = row.values.get("label")
    truth = label.strip().casefold() if isinstance(label, str) else label
    if truth is False or truth == "false":
        row.refuse(
            "label is false: this answer is undesirable, so it is not a demonstration; leave such records out "
            "(data.on_bad_record: drop)"
        )
    if truth in (0, "0", "0.0"):
        row.refuse(
            "label is 0: if that marks an undesirable answer (KTO), leave such records out (data.on_bad_record: drop); "
            "if it is something else, rename the column, or read it as kind (columns: {kind: label})"
        )
    if truth is True or truth == "true":
        row.read.add("label")
