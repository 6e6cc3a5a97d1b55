"""Ratings by criterion, the rationale and rewritten responses with a ranking; older answers have none."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    for name in ("ratings", "rationale", "rewrites"):
        op.add_column("rankings", sa.Column(name, sa.Text()))
