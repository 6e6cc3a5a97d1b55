"""The contents of a store besides prompts, responses and answers, as rows for export: guidelines, scores, flags,
decisions, campaigns.

Accounts, sessions and the audit belong to one server and are not exported.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Table, insert, select

from triphase.store.checks import RecordRefused
from triphase.store.schema import adjudications, campaigns, flags, guidelines, labelers, scores

TABLES: Mapping[str, Table] = {
    "guideline": guidelines, "score": scores, "flag": flags, "decision": adjudications, "campaign": campaigns,
}  # fmt: skip
"""Kind of row → its table."""
_PEOPLE = ("labeler", "decided_by")


def columns_of(kind: str) -> list[Column[Any]]:
    """The exported columns: all except a number that the database assigned."""
    return [column for column in TABLES[kind].columns if column.autoincrement is not True]


def side_rows(connection: Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every such row with its kind, in the order of their keys."""
    for kind, table in TABLES.items():
        query = select(*columns_of(kind)).order_by(*table.primary_key.columns)
        for row in connection.execute(query).mappings():
            yield kind, dict(row)


def insert_side_rows(connection: Connection, added: Sequence[tuple[str, Mapping[str, Any]]]) -> int:
    """Add new rows, adding the labelers named in them; return how many were new.

    Raises:
        RecordRefused: a row lacks a column, has an unknown one, names something that does not exist, or contradicts the
            one with
            its key. The ``key`` of the error is the row's number from 0.
    """
    people = set(connection.execute(select(labelers.c.name)).scalars())
    new = 0
    for number, (kind, row) in enumerate(added):
        table = TABLES[kind]
        problem = _problem(connection, kind, row)
        if problem:
            raise RecordRefused(kind, str(number), problem)
        for name in {str(row[part]) for part in _PEOPLE if part in row} - people:
            connection.execute(insert(labelers), {"name": name, "role": "labeler", "status": "active"})
            people.add(name)
        if not _is_there(connection, table, row):
            keys = [column.name for column in table.primary_key.columns if column.name in row]
            if keys and connection.execute(select(table).where(*(table.c[key] == row[key] for key in keys))).first():
                raise RecordRefused(
                    kind, str(number),
                    f"the {kind} {', '.join(str(row[key]) for key in keys)} is already in the "
                    "store with different content; import into an empty store",
                )  # fmt: skip
            connection.execute(insert(table), dict(row))
            new += 1
    return new


def _is_there(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Whether the row exists, with the same values in all columns."""
    same = select(table).where(*(table.c[name].is_not_distinct_from(value) for name, value in row.items()))
    return connection.execute(same).first() is not None


def _problem(connection: Connection, kind: str, row: Mapping[str, Any]) -> str | None:
    """Why a row cannot be stored: its columns differ, or it refers to something that is not in the store."""
    columns = columns_of(kind)
    odd = sorted(set(row) ^ {column.name for column in columns})
    if odd:
        return f"a {kind} has {'an unknown' if odd[0] in row else 'no'} column {odd[0]!r}; export it again"
    for column in columns:
        for key in column.foreign_keys:
            about = row[column.name]
            if column.name in _PEOPLE or about is None:
                continue
            if connection.execute(select(key.column).where(key.column == about)).first() is None:
                return f"a {kind} refers to {column.name} {about!r}, which is not in the store"
    return None
