"""Conversations in a single text, with a marker before each turn: the column `text` of training scripts.

HH-RLHF transcripts      \\n\\nHuman: …\\n\\nAssistant: …
ChatML                   <|im_start|>user\\n…<|im_end|>\\n<|im_start|>assistant\\n…<|im_end|>
Guanaco                  ### Human: … ### Assistant: …
Alpaca                   ### Instruction:\\n…\\n\\n### Input:\\n…\\n\\n### Response:\\n…
Llama 3                  <|start_header_id|>user<|end_header_id|>\\n\\n…<|eot_id|>
Gemma                    <start_of_turn>user\\n…<end_of_turn>
Zephyr                   <|user|>\\n…</s>\\n<|assistant|>\\n…</s>
Llama 2                  <s>[INST] <<SYS>>…<</SYS>> … [/INST] … </s>
"""

import re
from collections.abc import Callable, Iterator, Mapping

from triphase.records.cells import columns_in
from triphase.records.conversations import is_transcript, messages_of
from triphase.records.lines import Row
from triphase.records.types import Message

Turns = Iterator[tuple[str, str]]
_CHATML = re.compile(r"<\|im_start\|>(\w+)\r?\n(.*?)(?:<\|im_end\|>|\Z)", re.S)
_LLAMA_3 = re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>(.*?)(?:<\|eot_id\|>|\Z)", re.S)
_GEMMA = re.compile(r"<start_of_turn>(\w+)\r?\n(.*?)(?:<end_of_turn>|\Z)", re.S)
_ZEPHYR = re.compile(r"<\|(system|user|assistant)\|>\r?\n(.*?)(?:</s>|<\|end\|>|(?=<\|\w+\|>)|\Z)", re.S)
_GUANACO = re.compile(r"### ?(Human|Assistant|System):")
_ALPACA = re.compile(r"^### ?(Instruction|Input|Response):[ \t]*\n?", re.M)
_LLAMA = re.compile(r"(?:<s>\s*)?\[INST\]")
_LLAMA_END = re.compile(r"</?s>")
_EDGES = re.compile(r"</?s>|<bos>|<eos>|<\|begin_of_text\|>|<\|end_?of_?text\|>")
"""Tokens at the edges of a conversation, which are part of no turn."""
_SYSTEM = re.compile(r"\s*<<SYS>>(.*?)<</SYS>>(.*)", re.S)
_ANSWERS = {"completion", "response", "output", "answer", "summary", "highlights", "label", "labels", "target",
            "targets", "chosen", "rejected"}  # fmt: skip
_ROLES = {"Human": "user", "Assistant": "assistant", "System": "system"}


def turns_in_text(row: Row, column: str = "text") -> tuple[Message, ...] | None:
    """The conversation in a text column; None if there is none, or its turns have no known markers."""
    value = row.values.get(column)
    if not isinstance(value, str) or not value.strip():
        return None
    if is_transcript(value):
        row.read.add(column)
        return messages_of(row, column, value)
    for mark, turns in _KINDS.items():
        if first := mark.search(value):
            found = [{"role": role, "content": text.strip()} for role, text in turns(value)]
            if found:
                row.read.add(column)
                if _EDGES.sub("", value[: first.start()]).strip():
                    row.ignored.add(f"what precedes the first turn in {column}")
                if _EDGES.sub("", _outside(mark, value[first.start() :])).strip():
                    row.ignored.add(f"what follows the end of a turn in {column}")
                return messages_of(row, column, found)
    return None


def is_plain_text(row: Row) -> bool:
    """Whether a row has a text without turns, and no answer to it: all of it is trained on."""
    value = row.values.get("text")
    return isinstance(value, str) and bool(value.strip()) and not columns_in(row) & _ANSWERS


def _named(mark: re.Pattern[str]) -> Callable[[str], Turns]:
    """Turns that each name their role."""
    return lambda text: ((found[1], found[2]) for found in mark.finditer(text))


def _outside(mark: re.Pattern[str], text: str) -> str:
    """What is in no turn: behind the token that ends one, and before the next."""
    if mark is _LLAMA:
        answers = [_LLAMA_END.split(part.split("[INST]")[0], maxsplit=1) for part in text.split("[/INST]")[1:]]
        return "".join(answer[1] for answer in answers if len(answer) > 1)
    return mark.sub("", text) if mark in (_CHATML, _LLAMA_3, _GEMMA, _ZEPHYR) else ""


def _guanaco(text: str) -> Turns:
    parts = _GUANACO.split(text)
    yield from ((_ROLES[name], content) for name, content in zip(parts[1::2], parts[2::2], strict=True))


def _alpaca(text: str) -> Turns:
    """Text before the first marker is the script's own sentence, and part of no turn."""
    parts = _ALPACA.split(text)
    asked: list[str] = []
    for name, content in zip(parts[1::2], parts[2::2], strict=True):
        if name != "Response":
            asked.append(content.strip())
            continue
        yield "user", "\n\n".join(filter(None, asked))
        yield "assistant", content
        asked = []


def _llama(text: str) -> Turns:
    asked = ""
    for part in text.split("[INST]")[1:]:  # in one pass, however many unclosed markers there are
        question, end, answer = part.partition("[/INST]")
        asked += question
        if not end:
            asked += "[INST]"
            continue
        if told := _SYSTEM.match(asked):
            yield "system", told[1]
            asked = told[2]
        yield "user", asked
        answer = _LLAMA_END.split(answer, maxsplit=1)[0]
        if answer.strip():
            yield "assistant", answer
        asked = ""


_KINDS: Mapping[re.Pattern[str], Callable[[str], Turns]] = {
    **{mark: _named(mark) for mark in (_CHATML, _LLAMA_3, _GEMMA, _ZEPHYR)},
    _LLAMA: _llama,
    _GUANACO: _guanaco,
    _ALPACA: _alpaca,
}
