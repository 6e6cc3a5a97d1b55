"""Imports files and comparisons into the store: all of a call, or nothing of it."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from triphase.errors import DataError, StoreError
from triphase.labeling.exchange import formats, ranked
from triphase.labeling.exchange.comparisons import records_of_comparisons
from triphase.labeling.exchange.formats import Records
from triphase.labeling.exchange.settling import settled_prompts, settled_responses
from triphase.labeling.exchange.side_columns import Side, side_of
from triphase.labeling.exchange.stored import read_stored
from triphase.labeling.work import audit, item_plan
from triphase.labeling.work.campaign_plan import campaign_called
from triphase.monitoring.wording import counted
from triphase.records import foreign, tool_exports
from triphase.records.lines import Row
from triphase.records.prompts import conversation_in
from triphase.records.reading import stream_preferences, stream_prompts
from triphase.records.remarks import Remarks
from triphase.records.source_rows import read_rows
from triphase.records.types import Comparison, Ranking
from triphase.records.unique_prompts import PromptRegistry
from triphase.settings.data import SourceSettings
from triphase.store import Store
from triphase.store.answers import StoredAnswer
from triphase.store.checks import RecordRefused
from triphase.store.identity import ranking_id
from triphase.store.labels import insert_answers, insert_prompts, insert_responses
from triphase.store.side_tables import insert_side_rows


@dataclass(frozen=True, slots=True)
class Imported:
    """What was new in the store, the columns that were not read, and further messages."""

    prompts: int
    responses: int
    rankings: int
    ignored: tuple[str, ...] = ()
    gold: int = 0
    others: int = 0
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _File:
    """The records read from a file, and the line of each."""

    records: Records = field(default_factory=Records)
    where: dict[tuple[str, str], str] = field(default_factory=dict)
    kinds: set[str] = field(default_factory=set)
    ignored: set[str] = field(default_factory=set)
    seen: dict[object, int] = field(default_factory=dict)
    sides: list[tuple[Side, Side]] = field(default_factory=list)
    unsaid: list[frozenset[str]] = field(default_factory=list)
    """For each row of prompts or preferences: which of kind and split it does not name."""
    unranked: int = 0
    answered: int = 0
    """Conversations that end with an answer, which is no part of the prompt."""
    remarks: Remarks = field(default_factory=Remarks)


def import_file(
    store: Store, path: str | Path, *, heldout_share: float = 0.2, now: float = 0.0, by: str = "import"
) -> Imported:
    """Import a JSONL, JSON, CSV or Parquet file; the columns of each row determine its format.

    Importing a file again adds nothing. An error names the file and the line, and then nothing of the file is stored.
    """
    base = Path.cwd()
    source = SourceSettings(path=str(path))
    file = _File()
    for row in read_rows(source, base):
        _read(file, row, heldout_share)
    if not file.kinds and not file.unranked:
        raise DataError(f"{path}: contains no records")
    if file.kinds & {"preferences", "prompts"}:
        if len(file.kinds) > 1:
            raise DataError(
                f"{path}: contains rows of several formats ({', '.join(sorted(file.kinds))}); split the file"
            )
        _read_again(file, source, base, heldout_share)
    notes = _rank_rated(file.records)
    if file.unranked:
        notes.append(f"{counted(file.unranked, 'record')} without a submitted ranking left out")
    if file.answered:
        ends = f"{counted(file.answered, 'conversation')} with an answer at the end"
        notes.append(f"{ends}, which is not imported; to have it ranked write prompt and response")
    notes += file.remarks.lines()
    done = _write(store, file.records, now=now, by=by, source=str(path), where=file.where)
    return replace(done, ignored=tuple(sorted(file.ignored)), notes=tuple(notes))


def import_comparisons(store: Store, comparisons: Iterable[Comparison]) -> Imported:
    """Import preferences that were read elsewhere; importing them again adds nothing."""
    return _write(store, records_of_comparisons(comparisons), now=0.0, by="import", source="comparisons", where={})


def _read(file: _File, row: Row, heldout_share: float) -> None:
    """Read one row of a file, or what a row of another tool becomes."""
    found = tool_exports.read_export(row)
    if found is None:
        found = foreign.read_foreign(row)
    if found is None:
        found = [(formats.format_of(row), row)]
    file.unranked += not found
    for kind, each in found:
        file.kinds.add(kind)
        if kind == "preferences":
            file.sides.append(side_of(each))
        reader = _READERS.get(kind)
        if reader is None:
            ranked.check_names(each)
            file.unsaid.append(formats.unsaid(each))
        else:
            found_there = reader(each, heldout_share, file.seen)
            if kind != "store":
                found_there.unsaid = dict.fromkeys(found_there.prompts, formats.unsaid(each))
            _place(file, found_there, row.where)
            file.remarks.add(each)
            tool_exports.note_unread_parts(row)
            file.ignored |= formats.ignored_columns(row, kind) if each is row else foreign.unread_columns(row)


def _ends_answered(row: Row) -> bool:
    found = conversation_in(row)
    return found is not None and found[1][-1].role == "assistant"


def _read_again(file: _File, source: SourceSettings, base: Path, heldout_share: float) -> None:
    """Read a file of prompts or of preferences like the data files of a run."""
    if file.kinds == {"prompts"}:
        registry = PromptRegistry()
        unnamed: dict[str, frozenset[str]] = {}
        for item, unsaid in zip(stream_prompts(source, base, heldout_share), file.unsaid, strict=True):
            registry.add(item.record, item.where)
            file.remarks.add(item.row)
            file.answered += item.row is not None and _ends_answered(item.row)
            unnamed[item.record.id] = unnamed.get(item.record.id, unsaid) & unsaid
            file.ignored |= {*item.unread} - formats.COLUMNS["prompts"]
            file.where["prompt", item.record.id] = item.where
        file.records.prompts = registry.prompts
        file.records.unsaid = {prompt: unnamed[prompt.id] for prompt in registry.prompts}
        return
    comparisons = []
    for each in stream_preferences(source, base, heldout_share):
        comparisons.append(each.record)
        file.remarks.add(each.row)
        file.ignored |= {*each.unread} - formats.COLUMNS["preferences"]
        file.where["prompt", each.record.prompt.id] = each.where
    found = records_of_comparisons(comparisons, file.sides)
    found.unsaid = {}
    for comparison, unsaid in zip(comparisons, file.unsaid, strict=True):
        found.unsaid[comparison.prompt] = found.unsaid.get(comparison.prompt, unsaid) & unsaid
    _extend(file.records, found)


def _place(file: _File, found: Records, where: str) -> None:
    for kind, records in (("prompt", found.prompts), ("response", found.responses)):
        file.where |= {(kind, one.id): where for one in records}
    file.where |= {("ranking", one.ranking.id): where for one in found.answers}
    file.where |= {("gold", prompt): where for prompt, _, _ in found.gold}
    start = len(file.records.beside)
    file.where |= {(kind, str(start + n)): where for n, (kind, _) in enumerate(found.beside)}
    _extend(file.records, found)


def _rank_rated(records: Records) -> list[str]:
    """Rankings from single ratings: one for each labeler and prompt, equal ratings tied. Returns messages."""
    rated: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for prompt, labeler, response, rating in records.rated:
        rated[prompt, labeler][response] = rating
    alone = 0
    for (prompt, labeler), ratings in rated.items():
        if len(ratings) < 2:
            alone += 1
            continue
        given = foreign.places_by(list(ratings.values()))
        places = {response: place for response, place in zip(ratings, given, strict=True) if place is not None}
        identity = ranking_id(prompt, labeler, 0, sorted(places.items()))
        records.answers.append(StoredAnswer(Ranking(identity, prompt, labeler, places, (), 0.0)))
    notes = []
    if rated:
        notes.append(f"ranked by the ratings of single responses: {counted(len(rated) - alone, 'prompt')}")
    if alone:
        notes.append(f"{counted(alone, 'prompt')} with one rated response, and no ranking")
    return notes


def _write(
    store: Store, records: Records, *, now: float, by: str, source: str, where: dict[tuple[str, str], str]
) -> Imported:
    with store.transaction() as connection:
        try:
            done = _insert(connection, records, now=now, by=by)
        except RecordRefused as error:
            place = where.get((error.kind, error.key))
            raise StoreError(f"{place}: {error}" if place else str(error)) from None
        if done.prompts or done.responses or done.rankings:
            after = {"prompts": done.prompts, "responses": done.responses, "rankings": done.rankings, "source": source}
            audit.note(connection, at=now, who=by, action="imported", subject="store", after=after)
    return done


def _insert(connection: Connection, records: Records, *, now: float, by: str) -> Imported:
    new_prompts = insert_prompts(connection, _unique(settled_prompts(connection, records)))
    new_responses = insert_responses(connection, _unique(settled_responses(connection, records)))
    rankings = insert_answers(connection, records.answers)
    others = insert_side_rows(connection, records.beside)  # campaigns exist before the gold items that name them
    _refuse_gold_of_ended(connection, records)
    gold = sum(
        item_plan.add_gold(connection, prompt_id, places, now=now, by=by, campaign=campaign)
        for prompt_id, places, campaign in records.gold
    )
    return Imported(new_prompts, new_responses, rankings, gold=gold, others=others)


def _refuse_gold_of_ended(connection: Connection, records: Records) -> None:
    """New known answers for a campaign that has ended; those of a whole store come with their campaign."""
    brought = {values["name"] for kind, values in records.beside if kind == "campaign"}
    for prompt_id, _, name in records.gold:
        campaign = campaign_called(connection, name) if name and name not in brought else None
        if campaign is not None and campaign.state == "ended":
            why = f"campaign {name!r} has ended; nobody would get the gold item"
            raise RecordRefused("gold", prompt_id, f"gold answer for prompt {prompt_id!r}: {why}")


def _unique(records: list[Any]) -> list[Any]:
    """Records without repetitions; the same id with other content is left for the store to refuse."""
    return list({(record.id, record): record for record in records}.values())


def _extend(records: Records, more: Records) -> None:
    for part in fields(Records):
        there, new = getattr(records, part.name), getattr(more, part.name)
        if isinstance(there, dict):
            there.update({prompt: there.get(prompt, names) & names for prompt, names in new.items()})
        elif isinstance(there, set):
            there.update(new)
        else:
            there.extend(new)


_READERS: dict[str, Callable[[Row, float, dict[object, int]], Records]] = {
    "rankings": ranked.ranked_list,
    "votes": ranked.vote,
    "responses": ranked.answered,
    "store": lambda row, _heldout_share, _seen: read_stored(row),
}
