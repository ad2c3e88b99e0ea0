"""Where traces of tool runs and of claims are known by, and an index for what was reported.

Nothing is added to the grants: the service may insert whole rows, and update neither column.

On a table of many millions of reports, make the index by hand before migrating, which finds it:
``CREATE INDEX CONCURRENTLY usage_reports_reported ON usage_reports (answered_at)
INCLUDE (meter, value) WHERE state = 'reported'``. Made here it keeps reports from being written
meanwhile; usage goes on being recorded.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OLDEST_SERVED = "0001"

_INDEX = """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS usage_reports_reported ON usage_reports (answered_at)
    INCLUDE (meter, value) WHERE state = 'reported'
"""


def upgrade() -> None:
    """Add the columns, nullable and without a default, so that no row is written; and the index."""
    op.execute("ALTER TABLE usage_events ADD COLUMN traceparent text")
    op.execute("ALTER TABLE usage_reports ADD COLUMN traceparent text")
    op.execute(_INDEX)


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP INDEX usage_reports_reported")
    op.execute("ALTER TABLE usage_reports DROP COLUMN traceparent")
    op.execute("ALTER TABLE usage_events DROP COLUMN traceparent")
