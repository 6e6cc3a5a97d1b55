"""What a store holds beside prompts, responses and answers, as rows that travel: guidelines, scores, flags, decisions.

Accounts, sessions and the audit belong to one server and stay with it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Table, insert, select

from triphase.errors import StoreError
from triphase.store.schema import adjudications, flags, guidelines, labelers, scores

TABLES: Mapping[str, Table] = {
    "guideline": guidelines, "score": scores, "flag": flags, "decision": adjudications,
}  # fmt: skip
"""Kind of row → its table."""
_PEOPLE = ("labeler", "decided_by")


def columns_of(kind: str) -> list[Column[Any]]:
    """The columns that travel: all but a number that the database gave."""
    return [column for column in TABLES[kind].columns if column.autoincrement is not True]


def rows_beside(connection: Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every such row with its kind, in the order of their keys."""
    for kind, table in TABLES.items():
        query = select(*columns_of(kind)).order_by(*table.primary_key.columns)
        for row in connection.execute(query).mappings():
            yield kind, dict(row)


def insert_beside(connection: Connection, added: Sequence[tuple[str, Mapping[str, Any]]]) -> int:
    """Add rows that are not there yet, making known who is named in them; return how many were new.

    Raises:
        StoreError: a row lacks a column, has an unknown one, or contradicts the one with its key.
    """
    people = set(connection.execute(select(labelers.c.name)).scalars())
    new = 0
    for kind, row in added:
        table, wanted = TABLES[kind], {column.name for column in columns_of(kind)}
        if set(row) != wanted:
            odd = sorted(set(row) ^ wanted)[0]
            raise StoreError(f"a {kind} has {'an unknown' if odd in row else 'no'} column {odd!r}; export it again")
        for name in {str(row[part]) for part in _PEOPLE if part in row} - people:
            connection.execute(insert(labelers), {"name": name, "role": "labeler", "status": "active"})
            people.add(name)
        if not _is_there(connection, kind, table, row):
            connection.execute(insert(table), dict(row))
            new += 1
    return new


def _is_there(connection: Connection, kind: str, table: Table, row: Mapping[str, Any]) -> bool:
    """Whether the row is there; an error where its key (a version, a scored response) stands for something else."""
    same = select(table).where(*(table.c[name].is_not_distinct_from(value) for name, value in row.items()))
    if connection.execute(same).first() is not None:
        return True
    keys = [column.name for column in table.primary_key.columns if column.name in row]
    if keys and connection.execute(select(table).where(*(table.c[key] == row[key] for key in keys))).first():
        raise StoreError(
            f"the {kind} {', '.join(str(row[key]) for key in keys)} is already in the store with other content; "
            "import into an empty store"
        )
    return False
