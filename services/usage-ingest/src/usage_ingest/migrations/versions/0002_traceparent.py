"""Where the traces of tool runs and of claims are known by, while tracing is on.

Nothing is added to the grants: the service may insert whole rows, and update neither column.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OLDEST_SERVED = "0001"


def upgrade() -> None:
    """Add the columns: nullable and without a default, so no row is written."""
    op.execute("ALTER TABLE usage_events ADD COLUMN traceparent text")
    op.execute("ALTER TABLE usage_reports ADD COLUMN traceparent text")


def downgrade() -> None:
    """Drop them."""
    op.execute("ALTER TABLE usage_reports DROP COLUMN traceparent")
    op.execute("ALTER TABLE usage_events DROP COLUMN traceparent")
