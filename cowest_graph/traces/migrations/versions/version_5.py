"""When a finished call was journalled, so that one that nobody goes on with can be pruned."""

import sqlalchemy as sa
from alembic import op

from cowest_graph.traces.migrations import columns

revision = "5"
down_revision = "4"


def upgrade() -> None:
    """Calls of before have no time: they stay until their trace is whole."""
    if "created_at" not in columns(op.get_bind(), "journal"):
        op.add_column("journal", sa.Column("created_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    """The calls stay, their times go."""
    op.drop_column("journal", "created_at")
