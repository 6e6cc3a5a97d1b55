"""The operations of the phases and the labeling application on the store, in terms of records.

Adding is idempotent: the same id with the same content changes nothing, the same id with other content is an error, and
then nothing of the call is stored. All results have a fixed order: prompts by arrival, responses by arrival at their
prompt, answers by prompt, then time, then id.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import copy
from itertools import islice
from typing import Any, Self

from sqlalchemy import Connection, Table, func, insert, select

from triphase.records.types import Comparison, Prompt, RankedGroup, Ranking, Response, Split
from triphase.store import record_rows
from triphase.store.answers import StoredAnswer
from triphase.store.checks import RecordRefused, check_answers
from triphase.store.groups import comparisons_of, ranked_group
from triphase.store.schema import labelers, prompts, rankings, responses, scores

_CHUNK = 500
COUNTED = ("label", "adjudication")
"""Purposes whose active answers become comparisons."""


class Labels:
    """Prompts, responses and rankings, in and out. ``Store`` inherits it."""

    read_campaigns: Collection[str] | None = None
    """If set, only their answers and the decisions about them are counted; empty is the main task."""

    def only(self, campaigns: Collection[str]) -> Self:
        """The same store, counting only answers of these campaigns."""
        narrowed = copy(self)
        narrowed.read_campaigns = frozenset(campaigns)
        return narrowed

    def reads(self, answer: StoredAnswer) -> bool:
        """Whether an answer, or a decision of the lead, is of the counted campaigns."""
        return self.read_campaigns is None or answer.campaign in self.read_campaigns

    def transaction(self) -> AbstractContextManager[Connection]:
        """A write transaction; ``Store`` provides it."""
        raise NotImplementedError

    def reading(self) -> AbstractContextManager[Connection]:
        """A reading transaction; ``Store`` provides it."""
        raise NotImplementedError

    def add_prompts(self, added: Iterable[Prompt]) -> int:
        """Add prompts; return how many were new."""
        with self.transaction() as connection:
            return insert_prompts(connection, list(added))

    def add_responses(self, added: Iterable[Response]) -> int:
        """Add responses to existing prompts; return how many were new."""
        with self.transaction() as connection:
            return insert_responses(connection, list(added))

    def add_rankings(self, added: Iterable[Ranking]) -> int:
        """Add rankings, all or none; return how many were new."""
        return self.add_answers(StoredAnswer(ranking) for ranking in added)

    def add_answers(self, added: Iterable[StoredAnswer]) -> int:
        """Add rankings with everything that was given with them, all or none; return how many were new."""
        with self.transaction() as connection:
            return insert_answers(connection, list(added))

    def add_scores(self, scorer: str, added: Mapping[str, float]) -> None:
        """Store (or replace) a reward model's score of responses, by id; several scorers are an ensemble."""
        with self.transaction() as connection:
            for ids in _chunks(sorted(added)):
                connection.execute(scores.delete().where(scores.c.scorer == scorer, scores.c.response_id.in_(ids)))
                values = [{"response_id": id_, "scorer": scorer, "score": float(added[id_])} for id_ in ids]
                connection.execute(insert(scores), values)

    def scores(self) -> dict[str, dict[str, float]]:
        """Scores by response id, then scorer."""
        found: dict[str, dict[str, float]] = defaultdict(dict)
        with self.reading() as connection:
            for row in connection.execute(select(scores).order_by(scores.c.response_id, scores.c.scorer)):
                found[row.response_id][row.scorer] = row.score
        return dict(found)

    def prompts(self, split: Split | None = None) -> list[Prompt]:
        """All prompts, or those of one split."""
        query = select(prompts).order_by(prompts.c.position)
        if split is not None:
            query = query.where(prompts.c.split == split)
        with self.reading() as connection:
            return [record_rows.prompt_of(row) for row in connection.execute(query)]

    def responses(self, prompt_id: str | None = None) -> list[Response]:
        """All responses, or those to one prompt."""
        query = select(responses).join(prompts).order_by(prompts.c.position, responses.c.position)
        if prompt_id is not None:
            query = query.where(responses.c.prompt_id == prompt_id)
        with self.reading() as connection:
            return [record_rows.response_of(row) for row in connection.execute(query)]

    def rankings(self, prompt_id: str | None = None) -> list[Ranking]:
        """The active rankings that become comparisons, all or of one prompt."""
        return [answer.ranking for answer in self.answers(prompt_id)]

    def answers(self, prompt_id: str | None = None, *, counted: bool = True) -> list[StoredAnswer]:
        """Answers, all or of one prompt; with ``counted`` only those that become comparisons."""
        query = select(rankings).join(prompts).order_by(prompts.c.position, rankings.c.submitted_at, rankings.c.id)
        if counted:
            query = query.where(rankings.c.status == "active", rankings.c.purpose.in_(COUNTED))
            if self.read_campaigns is not None:
                query = query.where(rankings.c.campaign.in_(sorted(self.read_campaigns)))
        if prompt_id is not None:
            query = query.where(rankings.c.prompt_id == prompt_id)
        with self.reading() as connection:
            return [record_rows.answer_of(row) for row in connection.execute(query)]

    def count_responses(self) -> int:
        """The number of responses in the store."""
        with self.reading() as connection:
            return int(connection.execute(select(func.count()).select_from(responses)).scalar_one())

    def count_rankings(self) -> int:
        """The number of answers in the store, of whatever purpose and status."""
        with self.reading() as connection:
            return int(connection.execute(select(func.count()).select_from(rankings)).scalar_one())

    def ranked_groups(self, split: Split) -> list[RankedGroup]:
        """One group for each prompt of the split that has counted answers: see ``groups.ranked_group``."""
        groups = (ranked_group(*each) for each in self._by_prompt(split))
        return [group for group in groups if group is not None]

    def comparisons(self, split: Split) -> list[Comparison]:
        """Every ordered pair of every active ranking of the split, with its labeler; ties are left out."""
        return [
            comparison
            for prompt, answered, given in self._by_prompt(split)
            for answer in given
            for comparison in comparisons_of(prompt, answered, answer)
        ]

    def _by_prompt(self, split: Split) -> Iterator[tuple[Prompt, Sequence[Response], Sequence[StoredAnswer]]]:
        answered: dict[str, list[Response]] = defaultdict(list)
        given: dict[str, list[StoredAnswer]] = defaultdict(list)
        for response in self.responses():
            answered[response.prompt_id].append(response)
        for answer in self.answers():
            given[answer.ranking.prompt_id].append(answer)
        for prompt in self.prompts(split):
            if given[prompt.id]:
                yield prompt, answered[prompt.id], given[prompt.id]


def insert_prompts(connection: Connection, added: Sequence[Prompt]) -> int:
    """Add prompts within a transaction; return how many were new."""
    for prompt in added:
        if not prompt.messages or not prompt.id:
            raise RecordRefused("prompt", prompt.id, f"prompt {prompt.id!r} has no id or no messages; give both")
    new = _new_rows(connection, prompts, "prompt", [record_rows.prompt_row(prompt) for prompt in added])
    start: int = connection.execute(select(func.coalesce(func.max(prompts.c.position), -1))).scalar_one()
    _insert(connection, prompts, [{**row, "position": start + 1 + i} for i, row in enumerate(new)])
    return len(new)


def insert_responses(connection: Connection, added: Sequence[Response]) -> int:
    """Add responses within a transaction; return how many were new."""
    new = _new_rows(connection, responses, "response", [record_rows.response_row(response) for response in added])
    wanted = {row["prompt_id"] for row in new}
    next_position: dict[str, int] = {}
    for ids in _chunks(sorted(wanted)):
        query = (
            select(prompts.c.id, func.coalesce(func.max(responses.c.position), -1))
            .outerjoin(responses).where(prompts.c.id.in_(ids)).group_by(prompts.c.id)
        )  # fmt: skip
        next_position |= {id_: last + 1 for id_, last in connection.execute(query)}
    for row in new:
        if row["prompt_id"] not in next_position:
            message = f"response {row['id']!r} answers prompt {row['prompt_id']!r}, which is not in the store"
            raise RecordRefused("response", row["id"], message)
        row["position"] = next_position[row["prompt_id"]]
        next_position[row["prompt_id"]] += 1
    _insert(connection, responses, new)
    return len(new)


def insert_answers(connection: Connection, added: Sequence[StoredAnswer]) -> int:
    """Add answers within a transaction; return how many were new. Labelers without an account are added."""
    new = _new_rows(connection, rankings, "ranking", [record_rows.answer_row(answer) for answer in added])
    ids = {row["id"] for row in new}
    check_answers(connection, [answer for answer in added if answer.ranking.id in ids])
    names = sorted({row["labeler"] for row in new})
    known = {name for part in _chunks(names) for name in _known(connection, labelers.c.name, part)}
    unknown = [{"name": name, "role": "labeler", "status": "active"} for name in names if name not in known]
    _insert(connection, labelers, unknown)
    _insert(connection, rankings, new)
    return len(new)


def _known(connection: Connection, column: Any, ids: Sequence[str]) -> set[str]:
    return set(connection.execute(select(column).where(column.in_(ids))).scalars())


def _new_rows(connection: Connection, table: Table, kind: str, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that are new; an error if an id exists with other content."""
    there: dict[str, dict[str, Any]] = {}
    for ids in _chunks([row["id"] for row in wanted]):
        for found in connection.execute(select(table).where(table.c.id.in_(ids))).mappings():
            there[found["id"]] = dict(found)
    new = []
    for row in wanted:
        before = there.get(row["id"])
        if before is None:
            there[row["id"]] = row
            new.append(dict(row))
            continue
        for name, value in row.items():
            if before[name] != value:
                raise RecordRefused(
                    kind, row["id"],
                    f"{kind} {row['id']!r} is already in the store with another {name} "
                    f"({_short(before[name])}, not {_short(value)}); give it a new id, or leave it out",
                )  # fmt: skip
    return new


def _insert(connection: Connection, table: Table, values: list[dict[str, Any]]) -> None:
    for part in _chunks(values):
        connection.execute(insert(table), part)


def _chunks(values: Sequence[Any]) -> Iterator[list[Any]]:
    walk = iter(values)
    while part := list(islice(walk, _CHUNK)):
        yield part


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
