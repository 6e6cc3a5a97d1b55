"""Several tasks in one store: campaigns, and to which of them items, slots, answers and guidelines belong."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _campaign() -> sa.Column[str]:
    return sa.Column("campaign", sa.String(length=60), nullable=False, server_default="")


def upgrade() -> None:
    """Create the table; all existing rows belong to the main task, whose name is empty."""
    op.create_table(
        "campaigns",
        sa.Column("name", sa.String(length=60), nullable=False),
        sa.Column("task", sa.String(length=20), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("share", sa.Integer(), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("models", sa.Text(), nullable=False),
        sa.Column("split", sa.String(length=20), nullable=False),
        sa.Column("kind", sa.String(length=80), nullable=False),
        sa.Column("most", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.String(length=80), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.CheckConstraint("task IN ('ranking', 'ab', 'rating', 'policies')", name="campaigns_task"),
        sa.CheckConstraint("state IN ('active', 'paused', 'ended')", name="campaigns_state"),
        sa.PrimaryKeyConstraint("name"),
    )
    for table in ("guidelines", "assignments", "rankings"):
        op.add_column(table, _campaign())
    op.drop_index("assignments_next", "assignments")
    op.create_index("assignments_next", "assignments", ["state", "purpose", "campaign", "priority", "id"])
    # SQLite changes a constraint by rebuilding the table; foreign keys are off while migrations run there.
    with op.batch_alter_table("items") as items:
        items.add_column(_campaign())
        items.drop_constraint("items_prompt", type_="unique")
        items.create_unique_constraint("items_prompt", ["prompt_id", "kind", "campaign"])
