"""The tables as they were when Alembic's scripts began: nothing to change."""

revision = "4"
down_revision = None


def upgrade() -> None:
    """Nothing: `tables` brings older stores here."""


def downgrade() -> None:
    """Nothing: there is no way to what came before."""
