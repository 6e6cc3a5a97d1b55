"""Decisions of the lead are about one campaign; existing ones become decisions of each that they overruled."""

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A decision stays with the main task if that has answers to the prompt, and is copied to every other campaign."""
    op.add_column("adjudications", sa.Column("campaign", sa.String(length=60), nullable=False, server_default=""))
    connection = op.get_bind()
    answered: dict[str, set[str]] = {}
    named = sa.text(
        "SELECT DISTINCT prompt_id, campaign FROM rankings WHERE purpose = 'label' AND status = 'active' AND prompt_id "
        "IN (SELECT prompt_id FROM rankings WHERE purpose = 'label' AND status = 'active' AND campaign <> '')"
    )
    for prompt, campaign in connection.execute(named):
        answered.setdefault(prompt, set()).add(campaign)
    for prompt, campaigns in sorted(answered.items()):
        _divide(connection, prompt, sorted(campaigns))


def _divide(connection: sa.Connection, prompt: str, campaigns: list[str]) -> None:
    of = {"prompt": prompt}
    decisions = connection.execute(sa.text("SELECT * FROM adjudications WHERE prompt_id = :prompt ORDER BY id"), of)
    overruling = connection.execute(
        sa.text(
            "SELECT * FROM rankings WHERE prompt_id = :prompt AND purpose = 'adjudication' AND status = 'active' "
            "AND campaign = ''"
        ),
        of,
    )
    stays, *others = campaigns  # the main task's name is empty, and so the first
    newest, standing = list(decisions.mappings())[-1:], list(overruling.mappings())
    for ranking in standing:
        _set(connection, "rankings", ranking["id"], stays)
    for decision in newest:
        _set(connection, "adjudications", decision["id"], stays)
    for campaign in others:
        copies = {one["id"]: _identity(one["id"], campaign) for one in standing}
        for one in standing:
            _insert(connection, "rankings", {**one, "id": copies[one["id"]], "campaign": campaign})
        for one in newest:
            kept = {name: value for name, value in one.items() if name != "id"}
            about = copies.get(one["ranking_id"], one["ranking_id"])
            _insert(connection, "adjudications", {**kept, "ranking_id": about, "campaign": campaign})


def _identity(ranking: str, campaign: str) -> str:
    return f"k-{hashlib.sha256(repr((ranking, campaign)).encode()).hexdigest()[:20]}"


def _set(connection: sa.Connection, table: str, key: object, campaign: str) -> None:
    connection.execute(
        sa.text(f"UPDATE {table} SET campaign = :campaign WHERE id = :key"),  # noqa: S608 (our own names)
        {"key": key, "campaign": campaign},
    )


def _insert(connection: sa.Connection, table: str, row: dict[str, object]) -> None:
    names, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)  # noqa: S608 (our own names)
