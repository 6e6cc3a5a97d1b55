"""Texts to which a chat template has been applied already: the model's own would be applied to them again."""

import re

from triphase.records.lines import Row
from triphase.records.types import Comparison, Demonstration, Prompt

_SIGNS = ("<|", "<start_of_turn>", "[INST]", "<｜User｜>")
"""One of them is in every text that `_OPENED` finds; searching for these first is ten times as fast."""
_OPENED = re.compile(
    r"<\|(?:im_start|start_header_id|turn|start_of_role|START_OF_TURN_TOKEN|user|assistant|system)\|?>"
    r"|<\|start\|>(?=\w)|<start_of_turn>|\[INST\]|<｜User｜>"
)
_ASKED = re.compile(r"(?:### ?(?:Response|Assistant)|Assistant|ASSISTANT):\Z")
"""A prompt that ends with the name of the one who answers."""
_CLOSED = re.compile(
    r"(?:<\|(?:im_end|eot_id|end|return|end_of_text|endoftext|END_OF_TURN_TOKEN)\|>|<end_of_turn>|<turn\|>|</s>|<eos>"
    r"|<｜end▁of▁sentence｜>)\Z"
)
_LONGEST_END = 64


def remark_on_marks(row: Row, record: Demonstration | Prompt | Comparison) -> None:
    """Remark on a prompt with turns that a template opened, and on responses that end with the end of a turn."""
    prompt = record if isinstance(record, Prompt) else record.prompt
    for message in prompt.messages:
        if message.role != "assistant" and (mark := _mark_in(message.content)):
            row.remarks.add(
                f"prompts contain {mark!r}, as if a chat template had been applied to them; the model's is applied "
                "too, if it has one: write their turns as messages with role and content"
            )
    for text in _responses(record):
        end = text[-_LONGEST_END:].rstrip()
        if end.endswith(">") and (found := _CLOSED.search(end)):
            row.remarks.add(
                f"responses end with {found[0]!r}, and the model's end of a turn is added: remove it, unless it is "
                "part of their text"
            )


def _mark_in(text: str) -> str | None:
    found = _OPENED.search(text) if any(sign in text for sign in _SIGNS) else None
    if found is None and (end := text[-_LONGEST_END:].rstrip()).endswith(":"):
        found = _ASKED.search(end)
    return None if found is None else found[0]


def _responses(record: Demonstration | Prompt | Comparison) -> tuple[str, ...]:
    if isinstance(record, Comparison):
        return record.chosen, record.rejected
    return (record.response,) if isinstance(record, Demonstration) else ()
