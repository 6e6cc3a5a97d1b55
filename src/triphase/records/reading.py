"""Data files to records: demonstrations, prompts and preferences.

Columns are named as the field's tools name them:

    demonstrations   prompt + completion (or response) · messages · conversations (from/value)
                     instruction [+ input] + output · instruction + instances of input/output
    prompts          prompt · messages · conversations · instruction [+ input] · a conversation in chosen;
                     an answer at the end is left out
    preferences      prompt + chosen + rejected · conversations + chosen + rejected
                     chosen + rejected that begin with the same turns (lists of messages, or HH-RLHF transcripts)

Optional everywhere: ``kind``, ``split`` (train or heldout), ``id`` (refused twice in one file), ``prompt_id``. In a
file of prompts ``id`` is the prompt's id. Other columns are not read.
"""

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from triphase.errors import DataError
from triphase.records.conversations import checked_prompt, divided, is_transcript, messages_of, response_of, text_of
from triphase.records.identity import prompt_id, split_of
from triphase.records.lines import WHOLE, Part, RefuseRow, Row, kind_of, raise_refused
from triphase.records.rows import read_rows
from triphase.records.types import Comparison, Demonstration, Message, Prompt, Split
from triphase.settings.schema import SourceSettings

Record = TypeVar("Record")
_PROMPT_COLUMNS = ("prompt", "messages", "conversations", "instruction")


@dataclass(frozen=True, slots=True)
class Located(Generic[Record]):
    """A record, the file and line it came from, and the id that it has there (empty without one)."""

    record: Record
    where: str
    id: str = ""


def read_demonstrations(
    source: SourceSettings, base: Path, heldout_share: float = 0.2, refused: RefuseRow = raise_refused
) -> list[Demonstration]:
    """The demonstrations of one source. Where a record has no ``kind`` it gets the source's."""
    return [item.record for item in stream_demonstrations(source, base, heldout_share, refused)]


def read_prompts(
    source: SourceSettings, base: Path, heldout_share: float = 0.2, refused: RefuseRow = raise_refused
) -> list[Prompt]:
    """The prompts of one source. Equal prompts without ids stay apart: the second is ``…-2``, and so on."""
    return [item.record for item in stream_prompts(source, base, heldout_share, refused)]


def read_preferences(
    source: SourceSettings, base: Path, heldout_share: float = 0.2, refused: RefuseRow = raise_refused
) -> list[Comparison]:
    """The comparisons of one source."""
    return [item.record for item in stream_preferences(source, base, heldout_share, refused)]


def stream_demonstrations(
    source: SourceSettings,
    base: Path,
    heldout_share: float = 0.2,
    refused: RefuseRow = raise_refused,
    part: Part = WHOLE,
) -> Iterator[Located[Demonstration]]:
    """As ``read_demonstrations``, one record in memory at a time, each with its place; a part of the file, if asked."""

    def convert(row: Row) -> Iterator[Demonstration]:
        kind = _word(row, "kind", source.kind)
        for messages, response in _answered(row):
            yield Demonstration(_prompt(row, messages, kind, heldout_share), response, kind)

    return _records(source, base, convert, refused, part)


def stream_prompts(
    source: SourceSettings,
    base: Path,
    heldout_share: float = 0.2,
    refused: RefuseRow = raise_refused,
    part: Part = WHOLE,
) -> Iterator[Located[Prompt]]:
    """As ``read_prompts``, one record in memory at a time, each with its place; a part of the file, if asked."""
    copies: dict[str, int] = {}

    def convert(row: Row) -> Iterator[Prompt]:
        prompt = _prompt(row, _asked(row), _word(row, "kind", ""), heldout_share)
        given = _word(row, "id", "") or _word(row, "prompt_id", "")
        if given:
            yield Prompt(given, prompt.messages, prompt.kind, prompt.split)
            return
        copy = copies[prompt.id] = copies.get(prompt.id, 0) + 1
        yield prompt if copy == 1 else Prompt(f"{prompt.id}-{copy}", prompt.messages, prompt.kind, prompt.split)

    return _records(source, base, convert, refused, part)


def stream_preferences(
    source: SourceSettings,
    base: Path,
    heldout_share: float = 0.2,
    refused: RefuseRow = raise_refused,
    part: Part = WHOLE,
) -> Iterator[Located[Comparison]]:
    """As ``read_preferences``, one record in memory at a time, each with its place; a part of the file, if asked."""

    def convert(row: Row) -> Iterator[Comparison]:
        messages, chosen, rejected = _compared(row)
        if chosen == rejected:
            row.refuse("chosen and rejected are the same text")
        prompt = _prompt(row, messages, _word(row, "kind", ""), heldout_share)
        yield Comparison(prompt, chosen, rejected, _margin(row), _word(row, "labeler", ""))

    return _records(source, base, convert, refused, part)


def _records(
    source: SourceSettings, base: Path, convert: Callable[[Row], Iterator[Record]], refused: RefuseRow, part: Part
) -> Iterator[Located[Record]]:
    ids: dict[str, int] = {}
    count = 0
    for row in read_rows(source, base, refused, part):
        try:
            records = list(convert(row))
            given = _new_id(row, ids)
        except DataError as error:
            refused(error)
            continue
        count += len(records)
        where = row.where
        for record in records:
            yield Located(record, where, given)
    if not count:
        raise DataError(f"{source.path}: contains no records")


def _new_id(row: Row, ids: dict[str, int]) -> str:
    """The id of a row, or nothing; no two rows of a file may have the same."""
    given = _word(row, "id", "")
    if given:
        if given in ids:
            first = row.at(ids[given])
            row.refuse(f"the id {given!r} is already that of {first}; give each record an id of its own, or none")
        ids[given] = row.number
    return given


# --- Columns ------------------------------------------------------------------------------------------------------


def _has(row: Row, column: str) -> bool:
    return row.values.get(column) is not None


def _missing(row: Row, wanted: str, *names: str) -> NoReturn:
    found = [str(column) for column in row.values]
    pairs = [(near, name) for name in names for near in difflib.get_close_matches(name, found, n=1)]
    pairs = [(near, name) for near, name in pairs if near != name]
    hint = f"; rename {pairs[0][0]} to {pairs[0][1]}?" if pairs else ""
    row.refuse(f"missing column: {wanted}; found {', '.join(found)[:200] or 'none'}{hint}")


def _word(row: Row, column: str, default: str) -> str:
    """A short text column that may be absent; numbers are taken as their text."""
    value = row.values.get(column)
    if value is None or value == "":
        return default
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text_of(row, column, value)


def _split(row: Row, messages: tuple[Message, ...], heldout_share: float) -> Split:
    match _word(row, "split", ""):
        case "":
            return split_of(messages, heldout_share)
        case "train":
            return "train"
        case "heldout":
            return "heldout"
        case other:
            row.refuse(f"split is {other[:40]!r}; write train or heldout, or leave it out")


def _prompt(row: Row, messages: tuple[Message, ...], kind: str, heldout_share: float) -> Prompt:
    name = _word(row, "prompt_id", "") or prompt_id(messages)
    return Prompt(name, messages, kind, _split(row, messages, heldout_share))


def _margin(row: Row) -> float | None:
    value = row.values.get("margin")
    if value is None or value == "":
        return None
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        row.refuse(f"margin must be a number of at least 0, not {str(value)[:40]!r}")
    return number


# --- Prompts and responses ----------------------------------------------------------------------------------------


def _instruction(row: Row, values: Mapping[str, Any]) -> tuple[Message, ...]:
    text = text_of(row, "instruction", row.values["instruction"])
    extra = values.get("input")
    if extra is not None and extra != "" and not isinstance(extra, str):
        row.refuse(f"input must be text, not {kind_of(extra)}")
    return (Message("user", f"{text}\n\n{text_of(row, 'input', extra)}" if extra else text),)


def _asked(row: Row) -> tuple[Message, ...]:
    """The prompt of a record, without an answer that may follow it."""
    for column in ("prompt", "messages", "conversations", "chosen"):
        if _has(row, column) and (column != "chosen" or _is_conversation(row.values[column])):
            messages = messages_of(row, column, row.values[column])
            answered = messages[-1].role == "assistant"
            return checked_prompt(row, column, messages[:-1] if answered else messages)
    if _has(row, "instruction"):
        return _instruction(row, row.values)
    _missing(row, "prompt (or messages, conversations, instruction)", *_PROMPT_COLUMNS)


def _answered(row: Row) -> list[tuple[tuple[Message, ...], str]]:
    """The prompts and responses of one record: one, or as many as it has ``instances``."""
    if _has(row, "prompt"):
        column = "completion" if _has(row, "completion") else "response"
        if not _has(row, column):
            _missing(row, "completion (or response)", "completion", "response")
        prompt = checked_prompt(row, "prompt", messages_of(row, "prompt", row.values["prompt"]))
        return [(prompt, response_of(row, column, row.values[column]))]
    for column in ("messages", "conversations"):
        if _has(row, column):
            return [divided(row, column, messages_of(row, column, row.values[column]))]
    if _has(row, "instruction"):
        return _instructed(row)
    _missing(row, "prompt and completion (or messages, or instruction and output)", *_PROMPT_COLUMNS)


def _instructed(row: Row) -> list[tuple[tuple[Message, ...], str]]:
    if not _has(row, "instances"):
        if not _has(row, "output"):
            _missing(row, "output (or instances)", "output", "instances")
        return [(_instruction(row, row.values), text_of(row, "output", row.values["output"]))]
    instances = row.values["instances"]
    if not isinstance(instances, list) or not instances:
        row.refuse("instances must be a list of at least one object with input and output")
    answered = []
    for index, instance in enumerate(instances):
        if not isinstance(instance, Mapping):
            row.refuse(f"instances[{index}] must be an object with input and output, not {kind_of(instance)}")
        response = text_of(row, f"instances[{index}].output", instance.get("output"))
        answered.append((_instruction(row, instance), response))
    return answered


def _compared(row: Row) -> tuple[tuple[Message, ...], str, str]:
    """Prompt, chosen and rejected of one record, the prompt explicit or shared by the two."""
    for column in ("chosen", "rejected"):
        if not _has(row, column):
            _missing(row, column, column)
    chosen, rejected = row.values["chosen"], row.values["rejected"]
    if _is_conversation(chosen) and _is_conversation(rejected):
        return _shared(row, messages_of(row, "chosen", chosen), messages_of(row, "rejected", rejected))
    for column in ("prompt", "messages", "conversations"):
        if _has(row, column):
            prompt = checked_prompt(row, column, messages_of(row, column, row.values[column]))
            return prompt, response_of(row, "chosen", chosen), response_of(row, "rejected", rejected)
    if _has(row, "instruction"):
        return _instruction(row, row.values), response_of(row, "chosen", chosen), response_of(row, "rejected", rejected)
    _missing(row, "prompt (chosen and rejected are no conversations that contain it)", *_PROMPT_COLUMNS)


def _is_conversation(value: Any) -> bool:
    return is_transcript(value) or (isinstance(value, list) and len(value) > 1)


def _shared(
    row: Row, chosen: tuple[Message, ...], rejected: tuple[Message, ...]
) -> tuple[tuple[Message, ...], str, str]:
    prompt, answer = divided(row, "chosen", chosen)
    other_prompt, other = divided(row, "rejected", rejected)
    if prompt != other_prompt:
        turn = next(i for i in range(len(chosen) + 1) if chosen[i : i + 1] != rejected[i : i + 1])
        row.refuse(
            f"chosen and rejected part at turn {turn + 1}, before the last answer; "
            "they must be the same conversation up to one final assistant message"
        )
    return prompt, answer, other
