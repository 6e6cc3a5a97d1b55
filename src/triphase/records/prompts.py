"""Prompts in conventional columns: text, messages, an instruction, a question; system and history."""

from collections.abc import Callable, Mapping
from typing import Any

from triphase.records.conversations import checked_prompt, is_transcript, messages_of, turns_of
from triphase.records.lines import Row, is_blank, kind_of
from triphase.records.texts import parsed, plain_text_of, text_of
from triphase.records.types import Message

Messages = tuple[Message, ...]
CONVERSATIONS = ("messages", "conversations")
_SYSTEMS = ("system", "system_prompt")


def conversation_in(row: Row) -> tuple[str, Messages] | None:
    """The column with a list of messages, and these; None without one. An empty list next to a prompt is ignored."""
    for column in CONVERSATIONS:
        value = row.values.get(column)
        if value is not None and not (is_blank(value) and _asks(row)):
            messages = messages_of(row, column, row.get(column))
            return column, with_system(row, column, messages)
    return None


def question_in(row: Row) -> tuple[str, Messages] | None:
    """The column with a prompt and no answer, and the prompt; None without one."""
    for column, build in _QUESTIONS.items():
        if row.values.get(column) is not None:
            asked = _with_history(row, column, build(row, column, {}))
            return column, checked_prompt(row, column, with_system(row, column, asked))
    return None


def instruction_with(row: Row, extra: Mapping[str, Any]) -> Messages:
    """The prompt of an ``instruction`` whose ``input`` is that of ``extra``."""
    messages = _with_history(row, "instruction", _instruction(row, "instruction", extra))
    return with_system(row, "instruction", messages)


def with_system(row: Row, column: str, messages: Messages) -> Messages:
    """``messages`` after the system message of a separate column, if the row has one."""
    for name in _SYSTEMS:
        if is_blank(row.values.get(name)):
            continue
        value = row.get(name)
        if isinstance(value, str) and not value.strip():
            continue
        text = plain_text_of(row, name, value)
        if messages and messages[0].role == "system":
            if messages[0].content.strip() != text.strip():
                row.refuse(f"{name} and the system message in {column} differ; keep one of them")
        else:
            messages = (Message("system", text), *messages)
    return messages


def note_repeated(row: Row, messages: Messages, names: tuple[str, ...]) -> None:
    """Count columns as read if the conversation already contains their text; the others stay unread, and are
    reported."""
    texts = {message.content.strip() for message in messages}
    for name in names:
        value = row.values.get(name)
        if isinstance(value, str) and value.strip() in texts:
            row.read.add(name)
        elif value is not None and not isinstance(value, str) and _begins(row, name, value, messages):
            row.read.add(name)


def is_conversation(value: Any) -> bool:
    """Whether a value contains more than one turn."""
    return is_transcript(value) or (isinstance(value, list) and len(value) > 1)


def _begins(row: Row, name: str, value: Any, messages: Messages) -> bool:
    turns = turns_of(row, name, value)
    if not isinstance(turns, list) or len(turns) > len(messages):
        return False
    return all(
        isinstance(turn, Mapping) and turn.get("content", turn.get("value")) == message.content
        for turn, message in zip(turns, [m for m in messages if m.role != "system" or len(turns) == len(messages)],
                                 strict=False)
    )  # fmt: skip


def _asks(row: Row) -> bool:
    return any(not is_blank(row.values.get(name)) for name in (*_QUESTIONS, *CONVERSATIONS))


def _prompt(row: Row, column: str, _extra: Mapping[str, Any]) -> Messages:
    value = row.get(column)
    if isinstance(value, str) and value[:2] in ('["', "['") and value.rstrip()[-1:] == "]":
        found = parsed(value)
        if isinstance(found, list) and all(isinstance(each, str) for each in found):
            row.refuse(
                f"{column} is a list of texts, written as text; write one text, or a list of messages with "
                "role and content"
            )
    return messages_of(row, column, value)


def _instruction(row: Row, column: str, extra: Mapping[str, Any]) -> Messages:
    """An instruction, followed by its input: ``input``, or the ``context`` of other data sets."""
    texts = [plain_text_of(row, column, row.get(column))]
    for name, value in (("input", extra["input"] if "input" in extra else row.get("input")),
                        ("context", row.get("context"))):  # fmt: skip
        if value is not None and not isinstance(value, str):
            row.refuse(f"{name} must be text, not {kind_of(value)}")
        if value is not None and value.strip():
            texts.append(plain_text_of(row, name, value))
    return (Message("user", "\n\n".join(texts)),)


def _question(row: Row, column: str, _extra: Mapping[str, Any]) -> Messages:
    """A question, preceded by its ``context``."""
    text, context = plain_text_of(row, column, row.get(column)), row.get("context")
    if context is not None and not (isinstance(context, str) and not context.strip()):
        text = f"{plain_text_of(row, 'context', context)}\n\n{text}"
    return (Message("user", text),)


_QUESTIONS: Mapping[str, Callable[[Row, str, Mapping[str, Any]], Messages]] = {
    "prompt": _prompt,
    "instruction": _instruction,
    "question": _question,
    "query": _question,
}
QUESTIONS = tuple(_QUESTIONS)


def _with_history(row: Row, column: str, messages: Messages) -> Messages:
    """``messages`` after the turns of ``history``: pairs of a question and its answer, or messages."""
    value = row.values.get("history")
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = parsed(value)
        if value is None:
            row.refuse(
                "history looks like a list as text, but is neither JSON nor Python notation; write the list itself"
            )
    if is_blank(value):
        row.read.add("history")
    if is_blank(value) or isinstance(value, str):
        return messages  # text is no history of turns: the column stays unread, and is reported
    row.read.add("history")
    if not isinstance(value, list):
        row.refuse(f"history must be a list of [question, answer], not {kind_of(value)}")
    if isinstance(value[0], Mapping):
        before = messages_of(row, "history", value)
    else:
        before = tuple(turn for index, pair in enumerate(value) for turn in _pair(row, f"history[{index}]", pair))
    if messages[0].role == "system":
        return (messages[0], *before, *messages[1:])
    return (*before, *messages)


def _pair(row: Row, place: str, pair: Any) -> Messages:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        row.refuse(f"{place} must be a list of two texts, [question, answer], not {kind_of(pair)}")
    question, answer = (text_of(row, f"{place}[{index}]", text) for index, text in enumerate(pair))
    return Message("user", question), Message("assistant", answer)
