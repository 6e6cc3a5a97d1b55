"""Data files to records: demonstrations, prompts and preferences.

Columns are named as the field's tools name them:

    demonstrations   messages · conversations (from/value) · prompt + completion (or response, output, answer)
                     instruction [+ input or context] + output · instruction + instances of input/output
                     question (or query) [+ context] + answer · text, by its marked turns or learned whole
    prompts          any of these without the answer, or a conversation in chosen; an answer at the end is left out
    preferences      prompt (or another of these) + chosen + rejected
                     chosen + rejected that begin with the same turns (lists of messages, or HH-RLHF transcripts)
                     rankings and votes, of other data sets and tools too (``ranked_rows``): all of their pairs
    all              message trees of OpenAssistant (``trees``)

``messages`` take precedence over ``prompt``, since they contain the whole. ``system`` and ``history`` next to a prompt
become its first turns. Preferences may state in ``chosen_finished`` and ``rejected_finished`` whether a response was
cut (false), as our exports do. Optional everywhere: ``kind``, ``split`` (train or heldout), ``id`` (refused twice in
one file), ``prompt_id``. In a file of prompts ``id`` is the prompt's id. Other columns are not read; ``Located.unread``
has them.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Generic, TypeVar

from triphase.errors import DataError
from triphase.records.cells import digits
from triphase.records.columns import answered, asked, compared
from triphase.records.identity import prompt_id, split_of
from triphase.records.lines import WHOLE, Part, RecordError, RefuseRow, Row, is_blank, raise_refused
from triphase.records.paths import shown
from triphase.records.ranked_rows import RankedRow, pairs_of, rankings_in
from triphase.records.source_rows import read_rows
from triphase.records.splits import split_called
from triphase.records.template_marks import remark_on_marks
from triphase.records.texts import text_of
from triphase.records.types import Comparison, Demonstration, Message, Prompt, Split
from triphase.records.unique_prompts import PromptRegistry
from triphase.settings.data import SourceSettings

Record = TypeVar("Record", Demonstration, Prompt, Comparison)
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
_PLACEHOLDER = re.compile(r"<(?:image|video|audio)>")
_LONGEST_ID = 200
_LONGEST_WORD = 80
_GREATEST_MARGIN = 1e11


@dataclass(frozen=True, slots=True)
class Located(Generic[Record]):
    """A record, its file and line, and its id there (empty without one).

    ``unread`` names the nonempty columns of its row that were not read.
    """

    record: Record
    where: str
    id: str = ""
    unread: tuple[str, ...] = ()
    row: Row | None = None

    def refused(self, error: DataError) -> DataError:
        """``error`` about this record, with the line and the text of its row."""
        return error if self.row is None else RecordError(str(error), self.row.number, self.row.text, self.row.unit)


def read_demonstrations(
    source: SourceSettings, base: Path, heldout_share: float = 0.2, refused: RefuseRow = raise_refused
) -> list[Demonstration]:
    """The demonstrations of one source. A record without a ``kind`` gets the source's."""
    return [item.record for item in stream_demonstrations(source, base, heldout_share, refused)]


def read_prompts(
    source: SourceSettings, base: Path, heldout_share: float = 0.2, refused: RefuseRow = raise_refused
) -> list[Prompt]:
    """The prompts of one source, each once: equal prompts without ids are one prompt."""
    registry = PromptRegistry()
    for item in stream_prompts(source, base, heldout_share, refused):
        try:
            registry.add(item.record, item.where)
        except DataError as error:
            refused(error)
    return registry.prompts


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
    *,
    is_learned: bool = True,
) -> Iterator[Located[Demonstration]]:
    """Like ``read_demonstrations``, one record in memory at a time, each with its location; optionally a part.

    Responses that are marked as undesirable, or as not trained on, are refused unless ``is_learned`` is false.
    """

    def convert(row: Row) -> Iterator[Demonstration]:
        kind = _word(row, "kind", source.kind)
        for messages, response in answered(row, is_learned=is_learned):
            prompt = _prompt(row, messages or (Message("assistant", response),), kind, heldout_share)
            yield Demonstration(prompt if messages else replace(prompt, messages=()), response, kind)

    return _records(source, base, convert, refused, part)


def stream_prompts(
    source: SourceSettings,
    base: Path,
    heldout_share: float = 0.2,
    refused: RefuseRow = raise_refused,
    part: Part = WHOLE,
) -> Iterator[Located[Prompt]]:
    """Like ``read_prompts``, one record in memory at a time, each with its location; optionally a part of the file."""

    def convert(row: Row) -> Iterator[Prompt]:
        prompt = _prompt(row, asked(row), _word(row, "kind", ""), heldout_share)
        given = _word(row, "id", "", _LONGEST_ID)
        yield Prompt(given, prompt.messages, prompt.kind, prompt.split) if given else prompt

    return _records(source, base, convert, refused, part)


def stream_preferences(
    source: SourceSettings,
    base: Path,
    heldout_share: float = 0.2,
    refused: RefuseRow = raise_refused,
    part: Part = WHOLE,
) -> Iterator[Located[Comparison]]:
    """Like ``read_preferences``, one record in memory at a time, each with its location; optionally a part."""

    def convert(row: Row) -> Iterator[Comparison]:
        ranked = rankings_in(row)
        if ranked is not None:
            yield from _of_rankings(ranked, heldout_share)
            return
        messages, chosen, rejected = compared(row)
        if chosen == rejected:
            row.refuse("chosen and rejected are the same text")
        prompt = _prompt(row, messages, _word(row, "kind", ""), heldout_share)
        first, second = (_finished(row, f"{side}_finished") for side in ("chosen", "rejected"))
        yield Comparison(prompt, chosen, rejected, _margin(row), _word(row, "labeler", ""), first, second)

    return _records(source, base, convert, refused, part, are_compared=True)


def _of_rankings(ranked: list[RankedRow], heldout_share: float) -> Iterator[Comparison]:
    for one in ranked:
        prompt = _prompt(one.row, one.messages, _word(one.row, "kind", ""), heldout_share)
        margin, labeler = _margin(one.row), _word(one.row, "labeler", "")
        for better, other, tied in pairs_of(one.answers):
            yield Comparison(prompt, better, other, margin, labeler, tied=tied, ranking=one.answers)


def _records(
    source: SourceSettings,
    base: Path,
    convert: Callable[[Row], Iterator[Record]],
    refused: RefuseRow,
    part: Part,
    *,
    are_compared: bool = False,
) -> Iterator[Located[Record]]:
    ids: dict[str, tuple[str, tuple[Message, ...]]] = {}
    count = bad = 0

    def refuse(error: DataError) -> None:
        nonlocal bad
        bad += 1
        refused(error)

    for row in read_rows(source, base, refuse, part, are_compared=are_compared):
        try:
            records = list(convert(row))
            given = _new_id(row, records, ids)
        except DataError as error:
            refuse(error)
            continue
        count += len(records)
        where, unread = row.where, row.unread()
        for record in records:
            remark_on_marks(row, record)
            yield Located(record, where, given, unread, row)
    if not count:
        reason = "none of its records can be used" if bad else "contains no records"
        raise DataError(f"{shown(source.path)}: {reason}")


def _new_id(row: Row, records: list[Record], ids: dict[str, tuple[str, tuple[Message, ...]]]) -> str:
    """The id of a row, or empty; no two rows of a file may have the same."""
    given = _word(row, "id", "", _LONGEST_ID)
    if given:
        record = records[0]
        messages = record.messages if isinstance(record, Prompt) else record.prompt.messages
        if given in ids:
            place, before = ids[given]
            remedy = "give each record an id of its own, or none"
            if messages == before and not isinstance(record, Prompt):
                remedy += "; if it identifies the prompt, rename the column to prompt_id"
            row.refuse(f"the id {given!r} is already used by {place}; {remedy}")
        ids[given] = (row.where, messages)
    return given


def _word(row: Row, column: str, default: str, longest: int = _LONGEST_WORD) -> str:
    """A short text column that may be absent; whole numbers are converted to text."""
    value = row.get(column)
    if value is None or value == "":
        return default
    text = text_of(row, column, digits(row, column, value))
    if len(text) > longest:
        row.refuse(f"{column} has {len(text):,} characters; it may have {longest}")
    if any(unicodedata.category(sign) == "Cc" for sign in text):
        row.refuse(f"{column} contains a control character or a line break")
    return text


def _split(row: Row, messages: tuple[Message, ...], heldout_share: float) -> Split:
    name = _word(row, "split", "")
    return split_called(row, name) if name else split_of(messages, heldout_share)


def _prompt(row: Row, messages: tuple[Message, ...], kind: str, heldout_share: float) -> Prompt:
    for column in _MEDIA:
        if not is_blank(row.values.get(column)) and any(_PLACEHOLDER.search(each.content) for each in messages):
            row.refuse(
                f"the prompt refers to what is in {column}; text alone is supported: leave such records out "
                "(data.on_bad_record: drop)"
            )
    name = _word(row, "prompt_id", "", _LONGEST_ID) or prompt_id(messages)
    return Prompt(name, messages, kind, _split(row, messages, heldout_share))


def _finished(row: Row, column: str) -> bool | None:
    """Whether a response was finished, according to our own exports; None if unknown."""
    value = row.get(column)
    if value is None or value == "":
        return None
    said = str(value).lower()
    if not isinstance(value, bool | str) or said not in ("true", "false"):
        row.refuse(f"{column} must be true or false, not {str(value)[:40]!r}")
    return said == "true"


def _margin(row: Row) -> float | None:
    value = row.get("margin")
    if value is None or value == "":
        return None
    try:
        is_number = isinstance(value, int | float | str | Decimal) and not isinstance(value, bool)
        number = float(value) if is_number else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not 0 <= number < _GREATEST_MARGIN:
        row.refuse(f"margin must be a number of at least 0, and below {_GREATEST_MARGIN:g}, not {str(value)[:40]!r}")
    return number
