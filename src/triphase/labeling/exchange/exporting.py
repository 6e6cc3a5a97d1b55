"""Exports of the store: comparisons for training, raw rankings for analysis, or everything.

comparisons  prompt, chosen, rejected (messages, as TRL reads them), margin, labeler, confidence; one line for each
             ordered pair of each active ranking. ``confidence`` is the share of votes of all labelers for chosen
             over rejected: a soft label.
rankings     one line for each active ranking, also those of gold items and repeats: the responses in the order
             shown, places, times, and everything that was given with it
demonstrations  prompt, response: what labelers wrote where they rewrote a response, one line for each
store        one line for each prompt, response and answer; importing it into an empty store gives the same store

Exports can be imported again. Ties, of which neither side is chosen, pairs that no reader of preferences accepts (an
empty side, two equal texts) and rankings of a single response are left out, and counted.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from triphase.errors import DataError
from triphase.labeling.exchange.csv_cells import csv_text
from triphase.labeling.exchange.export_columns import COLUMNS
from triphase.records.files import atomic_file
from triphase.records.rankings import pairs_of_ranking
from triphase.records.types import Prompt, Response
from triphase.records.visible import visible_json, without_marks
from triphase.store import Store
from triphase.store.answers import StoredAnswer
from triphase.store.schema import items
from triphase.store.side_tables import side_rows

FORMATS = ("comparisons", "rankings", "demonstrations", "store")


@dataclass(frozen=True, slots=True)
class Exported:
    """The number of lines written, and the number left out by reason."""

    lines: int
    left_out: Mapping[str, int]


def export_file(store: Store, path: str | Path, name: str) -> Exported:
    """Write an export to a .jsonl, .csv or .parquet file, whole or not at all."""
    left_out: Counter[str] = Counter()
    rows = list(export_rows(store, name, left_out))
    write_rows(Path(path), rows, COLUMNS.get(name))
    return Exported(len(rows), dict(left_out))


def write_rows(target: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None) -> None:
    """Write rows to a .jsonl, .csv or .parquet file, whole or not at all.

    ``columns`` are those of a table without rows; None means lines of several kinds, which make no table.

    Raises:
        DataError: the name has another suffix, or a table cannot contain lines of several kinds.
    """
    if target.suffix not in (".jsonl", ".csv", ".parquet"):
        raise DataError(f"{target}: the suffix {target.suffix!r} is not supported; use .jsonl, .csv or .parquet")
    if target.suffix != ".jsonl" and columns is None:
        raise DataError(f"{target}: a store export has several kinds of records; export it as .jsonl")
    with atomic_file(target) as file:
        if target.suffix == ".jsonl":
            file.writelines(_line(row).encode() for row in rows)
        elif target.suffix == ".csv":
            file.write(csv_text(rows, columns or ()).encode())
        else:
            import pyarrow
            import pyarrow.parquet

            empty = pyarrow.Table.from_pydict({name: [] for name in columns or ()})
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)) if rows else empty, file)


def export_lines(store: Store, name: str) -> Iterator[str]:
    """An export as JSON lines."""
    return (_line(row) for row in export_rows(store, name))


def export_rows(store: Store, name: str, left_out: Counter[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of an export, in a fixed order; ``left_out`` counts the others, by reason."""
    counted: Counter[str] = Counter() if left_out is None else left_out
    match name:
        case "comparisons":
            return _comparisons(store, counted)
        case "rankings":
            return _rankings(store, counted)
        case "demonstrations":
            return _demonstrations(store)
        case "store":
            if store.read_campaigns is not None:
                raise DataError(
                    "a store is exported as a whole; export a campaign's answers as rankings or comparisons"
                )
            return _everything(store)
    raise DataError(f"{name!r} is not an export format; use one of {', '.join(FORMATS)}")


def _comparisons(store: Store, left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    for prompt, responses, answers in _by_prompt(store, store.answers()):
        known = {response.id: response for response in responses}
        votes: dict[tuple[str, str], list[float]] = defaultdict(list)
        for answer in answers:
            for one, other, target in pairs_of_ranking(answer.ranking.places):
                votes[one, other].append(target)
                votes[other, one].append(1.0 - target)
        for answer in answers:
            for chosen, rejected, target in pairs_of_ranking(answer.ranking.places):
                if target == 0.5:
                    left_out["pairs that are ties"] += 1
                    continue
                first, second = known[chosen], known[rejected]
                reason = _unreadable(prompt, first.text, second.text)
                if reason:
                    left_out[reason] += 1
                    continue
                yield {
                    "prompt": _messages(prompt),
                    "chosen": [{"role": "assistant", "content": first.text}],
                    "rejected": [{"role": "assistant", "content": second.text}],
                    "margin": answer.margin,
                    "labeler": answer.ranking.labeler,
                    "confidence": sum(votes[chosen, rejected]) / len(votes[chosen, rejected]),
                    "strength": answer.strength,
                    "purpose": answer.purpose,
                    "campaign": answer.campaign or None,
                    "submitted_at": answer.ranking.submitted_at,
                    "chosen_model": first.model,
                    "rejected_model": second.model,
                    "chosen_finished": first.finished,
                    "rejected_finished": second.finished,
                    "prompt_id": prompt.id,
                    "kind": prompt.kind,
                    "split": prompt.split,
                }


def _unreadable(prompt: Prompt, chosen: str, rejected: str) -> str | None:
    """Why no reader of preferences accepts a pair; None if one does."""
    if not chosen.strip() or not rejected.strip():
        return "pairs with an empty response"
    if chosen == rejected:
        return "pairs of equal texts"
    last = prompt.messages[-1]
    if last.role != "user" or not last.content.strip() or any(one.role == "system" for one in prompt.messages[1:]):
        return "pairs whose prompt does not end with a user message, or has a system message after the first"
    return None


def _rankings(store: Store, left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    standing = [answer for answer in store.answers(counted=False) if answer.status == "active" and store.reads(answer)]
    for prompt, responses, answers in _by_prompt(store, standing):
        known = {response.id: response for response in responses}
        for answer in answers:
            ranking = answer.ranking
            shown = list(ranking.order_shown) or [
                response.id for response in responses if response.id in ranking.places or len(ranking.places) < 2
            ]
            if len(shown) < 2:
                left_out["rankings of a single response"] += 1
                continue
            yield {
                "prompt": _messages(prompt),
                "responses": [known[id_].text for id_ in shown],
                "places": [ranking.places.get(id_) for id_ in shown],
                "models": [known[id_].model for id_ in shown],
                "response_ids": shown,
                "finished": [known[id_].finished for id_ in shown],
                "seeds": [known[id_].seed for id_ in shown],
                "shown": bool(ranking.order_shown),
                "labeler": ranking.labeler,
                "submitted_at": ranking.submitted_at,
                "seconds": ranking.seconds,
                "purpose": answer.purpose,
                "campaign": answer.campaign or None,
                "guideline_version": answer.guideline_version,
                "strength": answer.strength,
                "margin": answer.margin,
                "quality": [answer.quality.get(id_) for id_ in shown],
                "ratings": {name: [values.get(id_) for id_ in shown] for name, values in answer.ratings.items()}
                or None,
                "rationale": answer.rationale or None,
                "rewrites": [answer.rewrites.get(id_) for id_ in shown] if answer.rewrites else None,
                "note": ranking.note,
                "prompt_id": prompt.id,
                "kind": prompt.kind,
                "split": prompt.split,
            }


def _demonstrations(store: Store) -> Iterator[dict[str, Any]]:
    """Rewritten responses of answers that count, in the format of demonstrations."""
    for prompt, responses, answers in _by_prompt(store, store.answers()):
        known = {response.id: response for response in responses}
        for answer in answers:
            for id_, text in answer.rewrites.items():
                written = without_marks(text, known[id_].text)  # the page showed hidden characters as marks
                yield {
                    "messages": [*_messages(prompt), {"role": "assistant", "content": written}],
                    "labeler": answer.ranking.labeler,
                    "campaign": answer.campaign or None,
                    "model": known[id_].model,
                    "response_id": id_,
                    "prompt_id": prompt.id,
                    "kind": prompt.kind,
                    "split": prompt.split,
                }


def _everything(store: Store) -> Iterator[dict[str, Any]]:
    for prompt in store.prompts():
        yield {
            "type": "prompt",
            "id": prompt.id,
            "messages": _messages(prompt),
            "kind": prompt.kind,
            "split": prompt.split,
        }
    for response in store.responses():
        yield {"type": "response", **asdict(response)}
    for answer in store.answers(counted=False):
        beside = {name: value for name, value in asdict(answer).items() if name not in ("ranking", "assignment_id")}
        yield {"type": "ranking", **asdict(answer.ranking), **beside}
    with store.reading() as connection:
        query = select(items).where(items.c.kind == "gold").order_by(items.c.id)
        for row in connection.execute(query).all():
            known = {"prompt_id": row.prompt_id, "places": json.loads(row.gold_places), "campaign": row.campaign}
            yield {"type": "gold", **known}
        for kind, beside in list(side_rows(connection)):
            yield {"type": kind, **beside}


def _by_prompt(
    store: Store, answers: Iterable[StoredAnswer]
) -> Iterator[tuple[Prompt, list[Response], list[StoredAnswer]]]:
    responses: dict[str, list[Response]] = defaultdict(list)
    for response in store.responses():
        responses[response.prompt_id].append(response)
    given: dict[str, list[StoredAnswer]] = defaultdict(list)
    for answer in answers:
        given[answer.ranking.prompt_id].append(answer)
    for prompt in store.prompts():
        if given[prompt.id]:
            yield prompt, responses[prompt.id], given[prompt.id]


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def _line(row: Mapping[str, Any]) -> str:
    return visible_json(row) + "\n"
