"""Which reports sum up what came later than its runs, for a ledger that lost them.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"

OLDEST_SERVED = "0001"


def upgrade() -> None:
    """Add the column; its default is a constant, so that no row is written."""
    op.execute("ALTER TABLE meter_calls ADD COLUMN late boolean NOT NULL DEFAULT false")


def downgrade() -> None:
    """Drop it: a restored ledger then claims runs for late reports, which others charged."""
    op.execute("ALTER TABLE meter_calls DROP COLUMN late")
