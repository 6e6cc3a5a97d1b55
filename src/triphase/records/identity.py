"""Properties of a prompt that depend on its content alone: its id, and whether it is held out."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from json.encoder import encode_basestring as _quoted

from triphase.records.types import Message, Split

_DIGITS = 20


def _digest(messages: Iterable[Message]) -> str:
    return _digest_of(tuple(messages))


@lru_cache(maxsize=4)  # the id and the split of one prompt are computed together
def _digest_of(messages: tuple[Message, ...]) -> str:
    # The compact JSON of [[role, content], …], built here: reading large files is mostly this.
    turns = ",".join([f"[{_quoted(message.role)},{_quoted(message.content)}]" for message in messages])
    text = f"[{turns}]"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def prompt_id(messages: Iterable[Message]) -> str:
    """The id of a prompt without one: equal conversations have equal ids, in every file and every run."""
    return f"p-{_digest(messages)[:_DIGITS]}"


def split_of(messages: Iterable[Message], heldout_share: float) -> Split:
    """``heldout`` for about ``heldout_share`` of all prompts, by a hash of the conversation.

    It depends on nothing else: a prompt stays on its side in whatever file it occurs and whatever is added to it. A
    larger share keeps every prompt held out that a smaller one held out.
    """
    place = int(_digest(messages)[_DIGITS : _DIGITS + 13], 16) / 16**13
    return "heldout" if place < heldout_share else "train"
