"""Reads a row by conventional columns: prompt and answer, prompt alone, or a comparison."""

from collections.abc import Mapping
from typing import Any

from triphase.records.advice import missing, require_wanted
from triphase.records.conversations import (
    checked_prompt,
    divided,
    is_transcript,
    messages_of,
    require_learned,
    response_of,
    turns_of,
)
from triphase.records.lines import Row, is_blank, kind_of
from triphase.records.marked_texts import is_plain_text, turns_in_text
from triphase.records.prompts import (
    CONVERSATIONS,
    QUESTIONS,
    Messages,
    conversation_in,
    instruction_with,
    is_conversation,
    note_repeated,
    question_in,
    with_system,
)
from triphase.records.texts import parsed, plain_text_of, text_of
from triphase.records.trees import is_tree, root_of, turns_of_tree

_ANSWERS = ("completion", "response", "output", "answer")
_PROMPT_COLUMNS = (*CONVERSATIONS, *QUESTIONS)
_ANSWERED = (*_ANSWERS, "chosen", "rejected", "instances")


def asked(row: Row) -> Messages:
    """The prompt of a record, without an answer that may follow it."""
    row.read.update(_ANSWERED)
    if is_tree(row):
        return root_of(row)
    found = conversation_in(row) or _in_chosen(row)
    if found is not None:
        column, messages = found
        note_repeated(row, messages, QUESTIONS)
        return checked_prompt(row, column, messages[:-1] if messages[-1].role == "assistant" else messages)
    value = turns_of(row, "prompt", row.values.get("prompt"))
    if is_conversation(value):  # a whole conversation in the column of the prompt
        messages = with_system(row, "prompt", messages_of(row, "prompt", row.get("prompt")))
        if messages[-1].role == "assistant":
            return checked_prompt(row, "prompt", messages[:-1])
    question = question_in(row)
    if question is None and (told := turns_in_text(row)) is not None:
        return checked_prompt(row, "text", told[:-1] if told[-1].role == "assistant" else told)
    if question is None:
        missing(row, "prompts", "prompt (or messages, conversations, instruction, question)", *_PROMPT_COLUMNS)
    return question[1]


def answered(row: Row, *, is_learned: bool = True) -> list[tuple[Messages, str]]:
    """The prompts and responses of one record: one, or as many as it has ``instances``. Text alone has no prompt.

    ``is_learned``: responses that are marked as undesirable, or as not trained on, are refused.
    """
    if is_learned:
        require_wanted(row)
    if is_tree(row):
        turns = [(checked_prompt(row, "prompt", turn.asked), turn.replies[0]) for turn in turns_of_tree(row)]
        return turns or row.refuse("the tree has no reply of the assistant")
    conversation = conversation_in(row)
    if conversation is not None:
        return [_answered_conversation(row, *conversation, is_learned=is_learned)]
    if row.values.get("instances") is not None and row.values.get("instruction") is not None:
        return _instances(row)
    question = question_in(row)
    if question is None and (told := turns_in_text(row)) is not None:
        return [divided(row, "text", told)]
    if question is None and is_plain_text(row):
        return [((), text_of(row, "text", row.get("text")))]
    if question is None:
        wanted = "prompt and completion (or messages, or instruction and output, or question and answer)"
        missing(row, "demonstrations", wanted, *_PROMPT_COLUMNS)
    column = _answer_column(row)
    if column is None:
        if question[0] == "instruction":
            missing(row, "demonstrations", "output (or instances)", "output", "instances")
        missing(row, "demonstrations", "completion (or response)", "completion", "response")
    return [(question[1], _answer(row, column, is_learned=is_learned))]


def compared(row: Row) -> tuple[Messages, str, str]:
    """Prompt, chosen and rejected of one record, the prompt explicit or shared by the two."""
    for column in ("chosen", "rejected"):
        if row.values.get(column) is None:
            missing(row, "preferences", column, column)
    chosen, rejected = (turns_of(row, column, row.get(column)) for column in ("chosen", "rejected"))
    if is_conversation(chosen) and is_conversation(rejected):
        return _shared(row, chosen, rejected)
    for column, value in (("chosen", chosen), ("rejected", rejected)):
        if is_transcript(value):
            row.refuse(f"{column} is a whole conversation, but the other answer is not; use one format for both")
    found = conversation_in(row) or question_in(row)
    if found is None:
        missing(row, "preferences", "prompt (chosen and rejected are not conversations that contain it)",
                *_PROMPT_COLUMNS)  # fmt: skip
    column, messages = found
    note_repeated(row, messages, QUESTIONS)
    prompt = checked_prompt(row, column, messages)
    return prompt, response_of(row, "chosen", chosen), response_of(row, "rejected", rejected)


def _answered_conversation(row: Row, column: str, messages: Messages, *, is_learned: bool) -> tuple[Messages, str]:
    """A conversation that ends with its answer; or that is the prompt of an answer in a separate column."""
    answer = _answer_column(row)
    note_repeated(row, messages, (*QUESTIONS, *_ANSWERS))
    if messages[-1].role != "assistant" and answer is not None:
        return checked_prompt(row, column, messages), _answer(row, answer, is_learned=is_learned)
    if is_learned:
        require_learned(row, column, row.values[column])
    return divided(row, column, messages)


def _answer_column(row: Row) -> str | None:
    """The first nonempty column of an answer; the first existing one, if all are empty."""
    there = [column for column in _ANSWERS if row.values.get(column) is not None]
    return next((column for column in there if not is_blank(row.values[column])), there[0] if there else None)


def _answer(row: Row, column: str, *, is_learned: bool) -> str:
    value = row.get(column)
    if is_learned:
        require_learned(row, column, value)
    return response_of(row, column, value)


def _instances(row: Row) -> list[tuple[Messages, str]]:
    instances = row.get("instances")
    if isinstance(instances, str):
        instances = parsed(instances)
    if not isinstance(instances, list) or not instances:
        row.refuse("instances must be a list of at least one object with input and output")
    found = []
    for index, instance in enumerate(instances):
        if not isinstance(instance, Mapping):
            row.refuse(f"instances[{index}] must be an object with input and output, not {kind_of(instance)}")
        others = [name for name, value in instance.items() if name not in ("input", "output") and not is_blank(value)]
        row.ignored.update(f"instances[].{name}" for name in others)
        response = plain_text_of(row, f"instances[{index}].output", instance.get("output"))
        given = {"input": instance.get("input")}
        found.append((instruction_with(row, given), response))
    return found


def _in_chosen(row: Row) -> tuple[str, Messages] | None:
    """The conversation in ``chosen``, if it contains the whole of it."""
    value = turns_of(row, "chosen", row.values.get("chosen"))
    if not is_conversation(value):
        return None
    messages = messages_of(row, "chosen", value)
    if messages[0].role == "assistant":
        return None  # it continues a prompt in a separate column
    return "chosen", with_system(row, "chosen", messages)


def _shared(row: Row, chosen_value: Any, rejected_value: Any) -> tuple[Messages, str, str]:
    """Two conversations that begin alike and differ in the last answer; or continue a separate prompt."""
    chosen, rejected = messages_of(row, "chosen", chosen_value), messages_of(row, "rejected", rejected_value)
    if chosen[0].role == "assistant":
        found = conversation_in(row) or question_in(row)
        if found is None:
            missing(row, "preferences", "prompt (chosen begins with an answer)", *_PROMPT_COLUMNS)
        chosen, rejected = (*found[1], *chosen), (*found[1], *rejected)
    else:
        chosen, rejected = with_system(row, "chosen", chosen), with_system(row, "rejected", rejected)
    prompt, answer = divided(row, "chosen", chosen)
    other_prompt, other = divided(row, "rejected", rejected)
    if prompt != other_prompt:
        turn = next(i for i in range(len(chosen) + 1) if chosen[i : i + 1] != rejected[i : i + 1])
        row.refuse(
            f"chosen and rejected diverge at turn {turn + 1}, before the last answer; they must "
            f"be the same conversation up to one final assistant message"
        )
    note_repeated(row, chosen, _PROMPT_COLUMNS)
    return prompt, answer, other
