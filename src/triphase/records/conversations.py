"""The formats of conversations in data sets, converted to a tuple of messages.

Text is one user message. Lists have ``role``/``content`` or ``from``/``value``; they may be in a cell as text. A text
that begins with ``\\n\\nHuman:`` is a transcript in the HH-RLHF format, with turns separated by
``\\n\\nHuman:`` and ``\\n\\nAssistant:``.
"""

import re
from collections.abc import Mapping
from typing import Any

from triphase.records.lines import Row, is_blank, kind_of
from triphase.records.texts import storable, written_out
from triphase.records.texts import text_of as text_of
from triphase.records.types import Message, Role

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
_TURN = re.compile(r"(?:\r?\n){2}(Human|Assistant):")
_FIRST_TURN, _ANSWER = re.compile(r"(?:\r?\n){2}Human:"), re.compile(r"(?:\r?\n){2}Assistant:")
_LATER_TURN = re.compile(r"\n<extra_id_1>(User|Assistant)\n")
_MARGIN = 64
_CALLS = ("tool_calls", "function_call", "tool_call_id")
_OF_TOOLS = ("tool", "function", "function_call", "function_response", "observation", "ipython", "tool_call",
             "tool_response")  # fmt: skip
_LEAVE_OUT = "leave such records out (data.on_bad_record: drop)"
_UNTRAINED = ("weight", "train", "trainable", "loss")
"""Keys of a message by which data sets mark it as not trained on (0 or false)."""


def messages_of(row: Row, column: str, value: Any) -> tuple[Message, ...]:
    """``value`` as messages: text, a transcript, or a list of turns."""
    value = turns_of(row, column, value)
    if isinstance(value, str):
        text = text_of(row, column, value)
        return _transcript(text) if is_transcript(text) else _helpsteer(text)
    if not isinstance(value, list):
        row.refuse(f"{column} must be text or a list of messages, not {kind_of(value)}")
    if not value:
        row.refuse(f"{column} is empty")
    return tuple(_message(row, f"{column}[{index}]", turn) for index, turn in enumerate(value))


def turns_of(row: Row, column: str, value: Any) -> Any:
    """``value``, parsed if it is text that contains a list of messages; one message becomes a list of it."""
    found = written_out(row, column, value)
    return value if found is None else [found] if isinstance(found, Mapping) else found


def response_of(row: Row, column: str, value: Any) -> str:
    """The text of one assistant turn: plain text, one message, or a list of one message."""
    value = turns_of(row, column, value)
    if isinstance(value, list):
        if len(value) != 1:
            row.refuse(f"{column} must be one assistant message, not {len(value)} messages")
        value = value[0]
    if isinstance(value, Mapping):
        message = _message(row, column, value)
        if message.role != "assistant":
            row.refuse(f"{column} must be an assistant message, not a {message.role} message")
        value = message.content
    return text_of(row, column, value)


def is_transcript(value: Any) -> bool:
    """Whether ``value`` is a transcript in the HH-RLHF format; the line breaks before it may have been stripped."""
    if not isinstance(value, str):
        return False
    return bool(_FIRST_TURN.match(value) or (value[:_MARGIN].lstrip().startswith("Human:") and _ANSWER.search(value)))


def divided(row: Row, column: str, messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], str]:
    """A conversation that ends with the assistant's answer, as prompt and response."""
    if messages[-1].role != "assistant":
        row.refuse(f"{column} must end with an assistant message, not a {messages[-1].role} message")
    return checked_prompt(row, column, messages[:-1]), text_of(
        row, f"the last message of {column}", messages[-1].content
    )


def require_learned(row: Row, column: str, value: Any) -> None:
    """Refuse a conversation whose last message is marked as not trained on: nothing else in it is."""
    value = turns_of(row, column, value)
    last = value[-1] if isinstance(value, list) and value else value
    for key in _UNTRAINED if isinstance(last, Mapping) else ():
        if last.get(key) in (0, False, "0", "false", "False"):
            row.refuse(
                f"the last message of {column} has {key} {last[key]!r}, so there is nothing to "
                f"train on in this record; end the conversation before it, or leave the record out"
            )


def checked_prompt(row: Row, column: str, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """``messages`` as a prompt: it ends with a user message, and a system message comes first.

    An assistant's turn that is opened and left empty at the end, as in transcripts, is where the answer goes.
    """
    if messages[-1:] == (Message("assistant", ""),):
        messages = messages[:-1]
    if not messages or messages[-1].role != "user":
        role = (
            "none"
            if not messages
            else f"{'an' if messages[-1].role == 'assistant' else 'a'} {messages[-1].role} message"
        )
        row.refuse(f"the prompt in {column} must end with a user message, not {role}")
    if not messages[-1].content.strip():
        row.refuse(f"the last user message in {column} is empty")
    if any(message.role == "system" for message in messages[1:]):
        row.refuse(f"a system message in {column} must come first")
    return messages


def _message(row: Row, column: str, turn: Any) -> Message:
    if not isinstance(turn, Mapping):
        row.refuse(f"{column} must be an object with role and content, not {kind_of(turn)}")
    name_key, text_key = ("from", "value") if "from" in turn and "role" not in turn else ("role", "content")
    for key in _CALLS:
        if not is_blank(turn.get(key)):
            row.refuse(f"{column} calls a tool ({key}), which is not supported; {_LEAVE_OUT}")
    if not isinstance(turn.get(name_key), str):
        _lacks(row, column, turn, name_key)
    content = _text_parts(row, column, turn.get(text_key))
    if not isinstance(content, str):
        _lacks(row, column, turn, text_key)
    role = _ROLES.get(turn[name_key].lower())
    if role is None and turn[name_key].lower() in _OF_TOOLS:
        row.refuse(f"{column} is a turn of a tool ({turn[name_key][:40]}), which is not supported; {_LEAVE_OUT}")
    if role is None:
        row.refuse(f"{column} has the {name_key} {turn[name_key][:40]!r}; known are {', '.join(_ROLES)}")
    for key, value in turn.items():
        if key not in (name_key, text_key, *_UNTRAINED) and not is_blank(value):
            row.ignored.add(f"{column.partition('[')[0]}[].{key}")
    return Message(role, storable(row, column, content))


def _lacks(row: Row, column: str, turn: Mapping[Any, Any], key: str) -> None:
    found = kind_of(turn[key]) if key in turn else f"keys {', '.join(map(str, turn)) or 'none'}"
    row.refuse(f"{column} needs the text {key}; found {found}")


def _text_parts(row: Row, column: str, content: Any) -> Any:
    """The text of a content that is a list of parts, ``{"type": "text", "text": …}``."""
    if not isinstance(content, list) or not content:
        return content
    texts = []
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            found = repr(part.get("type"))[:40] if isinstance(part, Mapping) else kind_of(part)
            row.refuse(f"{column} has a part that is not text ({found}); only text is supported: {_LEAVE_OUT}")
        texts.append(part["text"])
    return "".join(texts)


def _helpsteer(text: str) -> tuple[Message, ...]:
    """The turns of a prompt as HelpSteer2 writes them, the first without a mark; otherwise the text is one turn."""
    parts = _LATER_TURN.split(text)
    names = parts[1::2]
    if not names or names != ["Assistant", "User"] * (len(names) // 2):
        return (Message("user", text),)
    roles: tuple[Role, Role] = ("user", "assistant")
    return tuple(Message(roles[n % 2], part.strip()) for n, part in enumerate(parts[::2]))


def _transcript(text: str) -> tuple[Message, ...]:
    """The turns of a transcript. Within an assistant's turn, ``\\n\\nAssistant:`` is part of its text."""
    parts = _TURN.split(f"\n\n{text.lstrip()}")
    turns: list[tuple[Role, str]] = []
    for name, content in zip(parts[1::2], parts[2::2], strict=True):
        role: Role = "user" if name == "Human" else "assistant"
        if role == "assistant" and turns and turns[-1][0] == role:
            before = turns.pop()[1]
            content = f"{before}\n\nAssistant:{content}" if before.strip() else content
        turns.append((role, content))
    return tuple(Message(role, content.strip()) for role, content in turns)
