"""The trace in which a customer was stored, for its announcement later.

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
    """Add the column: nullable and without a default, so no row is written."""
    op.execute("ALTER TABLE user_profiles ADD COLUMN traceparent text")
    op.execute("GRANT UPDATE (traceparent) ON user_profiles TO customer_provisioner")


def downgrade() -> None:
    """Drop it, and its grant with it."""
    op.execute("ALTER TABLE user_profiles DROP COLUMN traceparent")
