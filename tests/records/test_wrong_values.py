"""Any single wrong value in any field of a record is refused with file and line, or accepted and harmless."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from triphase.errors import DataError
from triphase.records.reading import read_demonstrations, read_preferences, read_prompts
from triphase.records.types import Comparison, Demonstration, Message, Prompt
from triphase.settings.data import SourceSettings

ASKED, SAID, OTHER = ({"role": role, "content": text} for role, text in
                      (("user", "Why?"), ("assistant", "So."), ("assistant", "No.")))  # fmt: skip
NAMED = {"id": "a", "prompt_id": "b", "kind": "c", "split": "train", "system": "Be brief."}
SHOWN = [
    {"prompt": "Why?", "completion": "So.", "label": True, "context": "It.", **NAMED},
    {"prompt": [ASKED], "completion": [SAID], **NAMED},
    {"messages": [ASKED, {**SAID, "weight": 1, "tool_calls": []}], "tools": [], "prompt": "Why?", **NAMED},
    {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}], **NAMED},
    {"instruction": "Why?", "input": "It.", "output": "So.", "history": [["One?", "First."]], **NAMED},
    {"instruction": "Why?", "instances": [{"input": "It.", "output": "So."}], **NAMED},
    {"question": "Why?", "context": "It.", "answer": "So.", **NAMED},
]
COMPARED = [
    {"prompt": "Why?", "chosen": "So.", "rejected": "No.", "margin": 1.5, "labeler": "d", **NAMED},
    {"chosen": [ASKED, SAID], "rejected": [ASKED, OTHER], "margin": 1, **NAMED},
    {"prompt": [ASKED], "chosen": [SAID], "rejected": OTHER, "labeler": "d", **NAMED},
    {"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?\n\nAssistant: No.", **NAMED},
]
WRONG: list[Any] = [
    None, True, False, 0, 1, -1, 2**70, 1e300, -0.5, "", " ", "x", "\0", "a\nb", "\x1b[31m", "\ud800", "y" * 300,
    "[/x]", "None", "true", "nan", "inf", "9" * 400, [], {}, [[]], [None], ["x"], [[1, 2]], {"role": "user"}, {"x": {}},
    [{"role": "user", "content": "x"}], [{"role": "evil", "content": "x"}], [{"from": 1, "value": 2}],
    '[{"role": "user", "content": 1}]', "[{'role': 'user', 'content': 'x'}]", "[{'role': 1", "\n\nHuman:",
    "\n\nHuman: x\n\nAssistant:", [{"input": 1, "output": "x"}], [{"output": None}], "heldout", "../x", "\u202e",
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside a record."""
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def with_value(record: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(record)
    holder: Any = changed
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return changed


def harmless(record: Demonstration | Prompt | Comparison) -> None:
    """Words are short and of one line, texts can be written as UTF-8, numbers are finite."""
    prompt = record if isinstance(record, Prompt) else record.prompt
    texts = [message.content for message in prompt.messages]
    words = [(prompt.id, 200), (prompt.kind, 80)]
    if isinstance(record, Comparison):
        texts += [record.chosen, record.rejected]
        words.append((record.labeler, 80))
        assert record.margin is None or 0 <= record.margin < float("inf")
    if isinstance(record, Demonstration):
        texts.append(record.response)
        words.append((record.kind, 80))
    assert prompt.id and prompt.split in ("train", "heldout")
    assert prompt.messages[-1].role == "user" and prompt.messages[-1].content.strip()
    assert all(isinstance(message, Message) and message.role in ("system", "user", "assistant")
               for message in prompt.messages)  # fmt: skip
    for word, longest in words:
        assert isinstance(word, str) and len(word) <= longest and not any(ord(sign) < 32 for sign in word)
    for text in (*texts, *(word for word, _ in words)):
        assert "\0" not in text
        text.encode("utf-8")


def fate(path: Path, row: Any, read: Callable[..., Any]) -> str:
    """What becomes of one record: used or refused, and never anything else."""
    path.write_text(json.dumps(row) + "\n")
    try:
        found = read(SourceSettings(path=str(path)), Path())
    except DataError as error:
        message = str(error)
        assert message.startswith(f"{path}:1: ") and "\n" not in message and len(message) < 600, message
        return "refused"
    for record in found:
        harmless(record)
    return "used"


@pytest.mark.parametrize(
    ("read", "records"),
    [(read_demonstrations, SHOWN), (read_prompts, [*SHOWN[2:6:2], COMPARED[1]]), (read_preferences, COMPARED)],
    ids=["demonstrations", "prompts", "preferences"],
)
def test_any_single_wrong_value_is_refused_or_harmless(
    tmp_path: Path, read: Callable[..., Any], records: list[dict[str, Any]]
) -> None:
    path, fates = tmp_path / "a.jsonl", {"used": 0, "refused": 0}
    for record in records:
        assert fate(path, record, read) == "used"
        for place in places(record):
            for wrong in WRONG:
                fates[fate(path, with_value(record, place, wrong), read)] += 1
    assert fates["refused"] > 400 and fates["used"] > 400


def test_any_pair_of_wrong_values_is_refused_or_harmless(tmp_path: Path) -> None:
    draw, path = random.Random(7), tmp_path / "a.jsonl"
    for _ in range(1000):
        records, read = draw.choice([(SHOWN, read_demonstrations), (COMPARED, read_preferences), (SHOWN, read_prompts)])
        row: Any = draw.choice(records)
        for _ in range(2):
            row = with_value(row, draw.choice(list(places(row))), draw.choice(WRONG))
        fate(path, row, read)
