"""Seeds of responses have 63 bits: PostgreSQL needs a wider column, SQLite stores integers of any width."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Widen the column if its width is fixed."""
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("responses", "seed", type_=sa.BigInteger(), existing_type=sa.Integer(), existing_nullable=True)
