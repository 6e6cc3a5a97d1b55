"""The file formats that ``label import`` accepts, recognized by their columns.

    store        type (prompt, response, ranking …), as written by ``label export --format store``
    rankings     responses (texts, best first) or responses + places (1 the best, equal is a tie, null not ranked)
    votes        response_a + response_b + winner (a, b or tie; 1 is the first and 2 the second)
    preferences  chosen + rejected: TRL explicit or implicit prompt, HH-RLHF transcripts (see ``records.reading``)
    responses    prompt + response, by the model in ``model``; ranked if there is helpfulness, rating, score or rank
    prompts      prompt or messages alone

Rows of other tools (see ``foreign``) become rows of these formats. A row with answers or judgments in columns that are
not read is refused: it is not a bare prompt.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from triphase.records.cells import absent, columns_in, named, parsed
from triphase.records.foreign import ASKED
from triphase.records.lines import Row
from triphase.records.trees import is_tree
from triphase.records.types import Prompt, Response
from triphase.store.answers import StoredAnswer
from triphase.store.side_tables import TABLES

IMPORTED = "imported"
STORED = ("prompt", "response", "ranking", "gold", *TABLES)
_ASKED = {"prompt", "messages", "conversations", "instruction", "question", "query"}
_OF_A_PROMPT = {"prompt_id", "kind", "split"}
_OF_A_RANKING = {
    "labeler", "submitted_at", "seconds", "note", "margin", "strength", "purpose", "guideline_version",
    "campaign",
}  # fmt: skip
COLUMNS: Mapping[str, set[str]] = {
    "rankings": {
        *_OF_A_PROMPT, *_OF_A_RANKING, "responses", "places", "models", "gold", "response_ids", "finished", "seeds",
        "quality", "ratings", "rationale", "rewrites", "shown",
    },
    "votes": {*_OF_A_PROMPT, *_OF_A_RANKING, "response_a", "response_b", "winner", "model_a", "model_b"},
    "preferences": {
        *_OF_A_PROMPT, "id", "chosen", "rejected", "margin", "labeler", "purpose", "campaign", "strength",
        "submitted_at",        "chosen_finished", "rejected_finished", "chosen_model", "rejected_model",
    },
    "responses": {
        *_OF_A_PROMPT, "response", "completion", "output", "answer", "model", "finished", "seed", "labeler",
    },
    "prompts": {*_OF_A_PROMPT, "id"},
}  # fmt: skip
"""The columns that each format reads."""
RATINGS = ("rank", "helpfulness", "rating", "score", "label")
"""Columns that judge a single response, the first existing one is used; by ``rank`` the smallest is the best."""
_ANSWERS = ("response", "completion", "output", "answer")
_JUDGES = re.compile(
    r"(?:^|[^a-z])(?:rank(?:ing)?|place|preference|preferred|winner|chosen|rejected|rating|score|answer|response|reply"
    r"|completion|output|generation|candidate|vote|best|better|worse|worst|choice|comparison|annotation|summarie)s?"
    r"(?:[^a-z]|$)",
    re.IGNORECASE,
)
_COUNTS = re.compile(r"(?:^|[^a-z])(?:num|n|count|length|tokens|model|id)(?:[^a-z]|$)", re.IGNORECASE)


@dataclass(slots=True)
class Records:
    """The contents of rows. ``assumed``: ids of responses whose ending is not in the file."""

    prompts: list[Prompt] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)
    answers: list[StoredAnswer] = field(default_factory=list)
    gold: list[tuple[str, dict[str, int], str]] = field(default_factory=list)
    """Prompt, the known places, and the campaign of the item (empty: the main task)."""
    beside: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    rated: list[tuple[str, str, str, float]] = field(default_factory=list)
    """Prompt, labeler, response and its rating, higher is better: rankings once all rows are read."""
    assumed: set[str] = field(default_factory=set)
    unsaid: dict[Prompt, frozenset[str]] = field(default_factory=dict)
    """For prompts from rows that do not name a kind or a split: which of the two."""


def unsaid(row: Row) -> frozenset[str]:
    """Which of kind and split a row does not name."""
    return frozenset(name for name in ("kind", "split") if absent(row.values.get(name)))


def format_of(row: Row) -> str:
    """The format of a row; an error that names the columns if it has none."""
    have = columns_in(row)
    if is_tree(row):
        row.refuse("is a message tree of OpenAssistant; name its file under data.preferences, where trees are read")
    if "type" in have and (row.values["type"] in STORED or not have & {*_ASKED, "chosen", "responses", "response_a"}):
        return "store"
    for name, needed in (
        ("rankings", {"responses"}),
        ("votes", {"response_a", "response_b"}),
        ("preferences", {"chosen", "rejected"}),
    ):
        if needed <= have:
            return name
    if have & {"chosen", "rejected"} and {"chosen", "rejected"} <= row.values.keys():
        row.refuse(f"{'chosen' if 'rejected' in have else 'rejected'} is empty")
    if answer_column(row) is not None:
        _refuse_unread_answers(row, have, "responses")
        return "responses"
    if have & _ASKED:
        _refuse_unread_answers(row, have, "prompts")
        return "prompts"
    _refuse_unknown(row, have)


def answer_column(row: Row) -> str | None:
    """The column of a row's single response, if it has one."""
    return next((name for name in _ANSWERS if isinstance(row.values.get(name), str | list | Mapping)
                 and not absent(row.values[name]) and _is_one_answer(row.values[name])), None)  # fmt: skip


def _is_one_answer(value: Any) -> bool:
    return isinstance(value, str | Mapping) or len(value) == 1


def rating_column(row: Row) -> str | None:
    """The column that judges a row's single response, if it has one."""
    for name in RATINGS:
        value = row.values.get(name)
        if not absent(value) and (name != "label" or isinstance(value, bool)):
            return name
    return None


def ignored_columns(row: Row, kind: str) -> set[str]:
    """Columns, and parts of columns, of a row that have not been read."""
    known = COLUMNS.get(kind)
    if known is None:
        return set()
    judged = {rating_column(row)} if kind == "responses" else set()
    return columns_in(row) - known - judged - row.read | row.ignored


def _refuse_unread_answers(row: Row, have: set[str], kind: str) -> None:
    """Refuse a bare prompt or response with an unread column that looks like answers or judgments of them."""
    unread = have - COLUMNS[kind] - ASKED - ({rating_column(row)} if kind == "responses" else set())
    for name in sorted(unread):
        known = [] if _COUNTS.search(name) else ["responses", "chosen", "rejected", "winner", "places"]
        near = difflib.get_close_matches(name, known, 1, 0.8)
        judges = kind == "prompts" and known and _JUDGES.search(name)
        if near or judges or _carries_answers(row.values[name]):
            hint = f"; did you mean {near[0]!r}?" if near else ""
            row.refuse(
                f"the column {name[:60]!r} would not be read, and looks like answers or judgments of them{hint} "
                f"(columns: {named(sorted(have), 200)}). Write rankings as prompt + responses (a list, best first) or "
                "responses + places, votes as response_a + response_b + winner, comparisons as chosen + rejected; or "
                "leave that column out"
            )


def _carries_answers(value: Any) -> bool:
    """Whether a value is a list of several objects, or of several texts of more than one word."""
    found = parsed(value)
    if isinstance(found, Mapping):
        return any(_carries_answers(each) for each in found.values())
    if not isinstance(found, list) or len(found) < 2:
        return False
    objects = sum(isinstance(each, Mapping) for each in found)
    texts = sum(isinstance(each, str) and len(each.split()) > 1 for each in found)
    return objects > 1 or texts > 1


def _refuse_unknown(row: Row, have: set[str]) -> NoReturn:
    known = ["type", "responses", "response_a", "chosen", "rejected", "response", "prompt", "messages"]
    near = [(name, found[0]) for name in sorted(have) if (found := difflib.get_close_matches(name, known, 1))]
    hint = f"; did you mean {near[0][1]!r} by {near[0][0]!r}?" if near else ""
    row.refuse(
        f"the columns {named(sorted(have), 200)} match no known format{hint} (known: prompt, with responses + places, "
        "or response_a + response_b + winner, or chosen + rejected, or response; and those of other tools that docs/"
        "labeling.md lists)"
    )
