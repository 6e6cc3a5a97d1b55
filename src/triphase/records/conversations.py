"""The ways in which data sets write a conversation, and the one in which it is kept: a tuple of messages.

Text is one user message. Lists are of ``role``/``content`` or of ``from``/``value``. A text that begins with
``\\n\\nHuman:`` is a transcript in the form of HH-RLHF, turns divided by ``\\n\\nHuman:`` and ``\\n\\nAssistant:``.
"""

import re
from collections.abc import Mapping
from typing import Any

from triphase.records.lines import Row, kind_of
from triphase.records.types import Message, Role

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
_TURN = re.compile(r"\n\n(Human|Assistant):")


def text_of(row: Row, column: str, value: Any) -> str:
    """``value`` as text that can be stored and encoded; not empty."""
    if not isinstance(value, str):
        row.refuse(f"{column} must be text, not {kind_of(value)}")
    if not value.strip():
        row.refuse(f"{column} is empty")
    return _storable(row, column, value)


def messages_of(row: Row, column: str, value: Any) -> tuple[Message, ...]:
    """``value`` as messages: text, a transcript, or a list of turns."""
    if isinstance(value, str):
        text = text_of(row, column, value)
        return _transcript(text) if is_transcript(text) else (Message("user", text),)
    if not isinstance(value, list):
        row.refuse(f"{column} must be text or a list of messages, not {kind_of(value)}")
    if not value:
        row.refuse(f"{column} is empty")
    return tuple(_message(row, f"{column}[{index}]", turn) for index, turn in enumerate(value))


def response_of(row: Row, column: str, value: Any) -> str:
    """The text of one assistant turn: plain text, one message, or a list of one message."""
    if isinstance(value, list):
        if len(value) != 1:
            row.refuse(f"{column} must be one assistant message, not {len(value)} messages")
        value = value[0]
    if isinstance(value, Mapping):
        message = _message(row, column, value)
        if message.role != "assistant":
            row.refuse(f"{column} must be an assistant message, not one of the {message.role}")
        value = message.content
    return text_of(row, column, value)


def is_transcript(value: Any) -> bool:
    """Whether ``value`` is a transcript in the form of HH-RLHF."""
    return isinstance(value, str) and value.startswith("\n\nHuman:")


def divided(row: Row, column: str, messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], str]:
    """A conversation that ends with the assistant's answer, as prompt and response."""
    if messages[-1].role != "assistant":
        row.refuse(f"{column} must end with an assistant message, not one of the {messages[-1].role}")
    return checked_prompt(row, column, messages[:-1]), text_of(
        row, f"the last message of {column}", messages[-1].content
    )


def checked_prompt(row: Row, column: str, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """``messages`` as a prompt: it ends with something that the user says, and a system message comes first.

    An assistant's turn that is opened and left empty at the end, as transcripts do, is where the answer goes.
    """
    if messages[-1:] == (Message("assistant", ""),):
        messages = messages[:-1]
    if not messages or messages[-1].role != "user":
        role = f"one of the {messages[-1].role}" if messages else "none"
        row.refuse(f"the prompt in {column} must end with a user message, not {role}")
    if not messages[-1].content.strip():
        row.refuse(f"the last user message in {column} is empty")
    if any(message.role == "system" for message in messages[1:]):
        row.refuse(f"a system message in {column} stands after the first place")
    return messages


def _message(row: Row, column: str, turn: Any) -> Message:
    if not isinstance(turn, Mapping):
        row.refuse(f"{column} must be an object with role and content, not {kind_of(turn)}")
    name_key, text_key = ("from", "value") if "from" in turn and "role" not in turn else ("role", "content")
    for key in (name_key, text_key):
        if not isinstance(turn.get(key), str):
            found = kind_of(turn[key]) if key in turn else f"keys {', '.join(map(str, turn)) or 'none'}"
            row.refuse(f"{column} needs the text {key}; found {found}")
    role = _ROLES.get(turn[name_key].lower())
    if role is None:
        row.refuse(f"{column} has the {name_key} {turn[name_key][:40]!r}; known are {', '.join(_ROLES)}")
    return Message(role, _storable(row, column, turn[text_key]))


def _transcript(text: str) -> tuple[Message, ...]:
    parts = _TURN.split(text)
    turns = [
        Message("user" if name == "Human" else "assistant", content.strip())
        for name, content in zip(parts[1::2], parts[2::2], strict=True)
    ]
    return tuple(turns)


def _storable(row: Row, column: str, text: str) -> str:
    if "\0" in text:
        row.refuse(f"{column} contains a NUL character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        row.refuse(f"{column} contains half of a surrogate pair (\\ud800 to \\udfff), which is no character")
    return text
