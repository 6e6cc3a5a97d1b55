"""Files and comparisons into the store: all of a call, or nothing of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from triphase.errors import DataError
from triphase.labelling import audit, formats, plan
from triphase.labelling.formats import Records
from triphase.records.lines import Row
from triphase.records.reading import read_preferences, read_prompts
from triphase.records.rows import read_rows
from triphase.records.types import Comparison, Message, Prompt, Ranking, Response
from triphase.settings.schema import SourceSettings
from triphase.store import Store
from triphase.store.answers import Answer
from triphase.store.beside import insert_beside
from triphase.store.identity import ranking_id, response_id
from triphase.store.labels import insert_answers, insert_prompts, insert_responses


@dataclass(frozen=True, slots=True)
class Imported:
    """What was new in the store, and the columns that were not read."""

    prompts: int
    responses: int
    rankings: int
    ignored: tuple[str, ...] = ()


def import_file(
    store: Store, path: str | Path, *, heldout_share: float = 0.2, now: float = 0.0, by: str = "import"
) -> Imported:
    """Import a JSONL, JSON, CSV or Parquet file; its format follows from the columns of each row.

    Importing a file again adds nothing. An error names the file and the line, and then nothing of the file is kept.
    """
    base = Path.cwd()
    source = SourceSettings(path=str(path))
    records, ignored, seen = Records(), set[str](), dict[object, int]()
    kinds: set[str] = set()
    for row in read_rows(source, base):
        kind = formats.format_of(row)
        kinds.add(kind)
        ignored |= formats.ignored_columns(row, kind)
        reader = _READERS.get(kind)
        if reader is not None:
            _extend(records, reader(row, heldout_share, seen))
    if not kinds:
        raise DataError(f"{path}: contains no records")
    if kinds & {"preferences", "prompts"}:
        if len(kinds) > 1:
            raise DataError(f"{path}: holds rows of several formats ({', '.join(sorted(kinds))}); split the file")
        if kinds == {"prompts"}:
            records.prompts = read_prompts(source, base, heldout_share)
        else:
            _extend(records, records_of_comparisons(read_preferences(source, base, heldout_share)))
    done = _write(store, records, now=now, by=by, source=str(path))
    return Imported(done.prompts, done.responses, done.rankings, tuple(sorted(ignored)))


def import_comparisons(store: Store, comparisons: Iterable[Comparison]) -> Imported:
    """Import preferences that were read elsewhere; again adds nothing."""
    return _write(store, records_of_comparisons(comparisons), now=0.0, by="import", source="comparisons")


def records_of_comparisons(comparisons: Iterable[Comparison]) -> Records:
    """Each comparison as two responses and a ranking of them; equal texts of a prompt are one response."""
    records, seen = Records(), dict[object, int]()
    for comparison in comparisons:
        prompt, labeler = comparison.prompt, comparison.labeler or formats.IMPORTED
        pair = [
            Response(response_id(prompt.id, formats.IMPORTED, 0, text), prompt.id, text, formats.IMPORTED)
            for text in (comparison.chosen, comparison.rejected)
        ]
        key = (prompt.id, labeler, pair[0].id, pair[1].id, comparison.margin)
        seen[key] = seen.get(key, -1) + 1
        ranking = Ranking(
            id=ranking_id(prompt.id, labeler, seen[key], list(key[2:])),
            prompt_id=prompt.id,
            labeler=labeler,
            places={pair[0].id: 1, pair[1].id: 2},
            order_shown=(),
            submitted_at=0.0,
        )
        records.prompts.append(prompt)
        records.responses += pair
        records.answers.append(Answer(ranking, margin=comparison.margin))
    return records


def _write(store: Store, records: Records, *, now: float, by: str, source: str) -> Imported:
    with store.transaction() as connection:
        prompts = insert_prompts(connection, _unique(records.prompts))
        responses = insert_responses(connection, _unique(records.responses))
        rankings = insert_answers(connection, records.answers)
        for prompt_id, places in records.gold:
            plan.add_gold(connection, prompt_id, places, now=now, by=by)
        insert_beside(connection, records.beside)
        if prompts or responses or rankings:
            after = {"prompts": prompts, "responses": responses, "rankings": rankings, "source": source}
            audit.note(connection, at=now, who=by, action="imported", subject="store", after=after)
    return Imported(prompts, responses, rankings)


def _unique(records: list[Any]) -> list[Any]:
    """Records without repetitions; the same id with other content is left for the store to refuse."""
    return list({(record.id, record): record for record in records}.values())


def _extend(records: Records, more: Records) -> None:
    for part in fields(Records):
        getattr(records, part.name).extend(getattr(more, part.name))


def _stored(row: Row, _heldout_share: float, _seen: dict[object, int]) -> Records:
    values = dict(formats.stored(row))
    kind = values.pop("type")
    try:
        match kind:
            case "prompt":
                messages = tuple(Message(one["role"], one["content"]) for one in values.pop("messages"))
                return Records(prompts=[Prompt(messages=messages, **values)])
            case "response":
                return Records(responses=[Response(**values)])
            case "gold":
                return Records(gold=[(values["prompt_id"], values["places"])])
            case "ranking":
                return Records(answers=[_answer(values)])
            case _:
                return Records(beside=[(str(kind), values)])
    except (KeyError, TypeError) as error:
        row.refuse(f"not a {kind} of the store format ({error}); export it again")


def _answer(values: dict[str, Any]) -> Answer:
    values["order_shown"] = tuple(values["order_shown"])
    of_ranking = {part.name for part in fields(Ranking)}
    ranking = Ranking(**{name: value for name, value in values.items() if name in of_ranking})
    beside: Mapping[str, Any] = {name: value for name, value in values.items() if name not in of_ranking}
    return Answer(ranking, **beside)


_READERS: dict[str, Callable[[Row, float, dict[object, int]], Records]] = {
    "rankings": formats.ranked_list,
    "votes": formats.vote,
    "responses": formats.answered,
    "store": _stored,
}
