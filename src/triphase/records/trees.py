"""Message trees in OpenAssistant's format: a prompt with replies, each with its rank and its own replies.

The best reply of the assistant at each turn is the demonstration there, and the conversation continues from it; all
ranked replies at that turn are a ranking. Deleted messages, and those that reviewers rejected, are left out with their
descendants.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triphase.records.cells import parsed
from triphase.records.conversations import checked_prompt
from triphase.records.lines import Row, is_blank
from triphase.records.texts import plain_text_of
from triphase.records.types import Message

Messages = tuple[Message, ...]
_COLUMNS = ("prompt", "message_tree_id")
_READ = {"text", "role", "rank", "replies", "deleted", "review_result", "message_id", "parent_id"}


@dataclass(frozen=True, slots=True)
class Turn:
    """The prompt at a turn of a tree, and the replies to it, the best first; those at the end have no rank."""

    asked: Messages
    replies: tuple[str, ...]
    ranks: tuple[int | None, ...]


def is_tree(row: Row) -> bool:
    """Whether a row contains a message tree, also as text. Exports without nulls omit the replies if there are none."""
    prompt = _root(row)
    if not isinstance(prompt, Mapping) or "text" not in prompt:
        return False
    return isinstance(prompt.get("replies"), list) or ("role" in prompt and prompt.get("replies") is None)


def root_of(row: Row) -> Messages:
    """The first prompt."""
    row.read.update(_COLUMNS)
    return checked_prompt(row, "prompt", (Message("user", _text(row, _root(row))),))


def turns_of_tree(row: Row) -> Iterator[Turn]:
    """Every turn at which the assistant has a reply, along the best replies."""
    row.read.update(_COLUMNS)
    waiting: list[tuple[Mapping[str, Any], Messages]] = [(_root(row), ())]
    while waiting:  # without recursion: a tree may be deeper than Python's stack
        node, before = waiting.pop()
        asked = (*before, Message("user", _text(row, node)))
        replies = sorted(_usable(row, node, "assistant"), key=lambda reply: (_rank(reply) is None, _rank(reply) or 0))
        if not replies:
            continue
        texts = tuple(_text(row, reply) for reply in replies)
        yield Turn(asked, texts, tuple(_rank(reply) for reply in replies))
        known = (*asked, Message("assistant", texts[0]))
        waiting += [(further, known) for further in reversed(_usable(row, replies[0], "prompter"))]
        if any(not is_blank(reply.get("replies")) for reply in replies[1:]):
            row.ignored.add("what follows replies that are not the best")


def _root(row: Row) -> Any:
    return parsed(row.values.get("prompt"))


def _usable(row: Row, node: Mapping[str, Any], role: str) -> Sequence[Mapping[str, Any]]:
    """The replies of a role that were neither deleted nor rejected; that there are others is noted."""
    found = node.get("replies")
    replies = [reply for reply in (found if isinstance(found, list) else ()) if isinstance(reply, Mapping)]
    kept = [reply for reply in replies if not reply.get("deleted") and reply.get("review_result") is not False]
    of_role = [reply for reply in kept if reply.get("role") == role]
    if len(kept) < len(replies):
        row.ignored.add("messages that were deleted or rejected")
    if len(of_role) < len(kept):
        row.ignored.add("replies of the same role as the message before")
    return of_role


def _rank(reply: Mapping[str, Any]) -> int | None:
    """A table writes ranks as text or, next to messages without one, as fractions: 1.0 is 1."""
    rank = reply.get("rank")
    try:
        number = math.nan if isinstance(rank, bool) or rank is None else float(rank)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if math.isfinite(number) else None


def _text(row: Row, node: Mapping[str, Any]) -> str:
    row.ignored.update(
        f"{key} of the tree's messages" for key, value in node.items() if key not in _READ and not is_blank(value)
    )
    return plain_text_of(row, "a message text in the tree", node.get("text"))
