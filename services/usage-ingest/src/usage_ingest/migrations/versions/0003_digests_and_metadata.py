"""By which version a digest was made, and whether an event's metadata was left out.

What is there was made by version 1, and so is what the releases before this one insert beside it.
Nothing is added to the grants: the service may insert whole rows, and update neither column.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

OLDEST_SERVED = "0001"


def upgrade() -> None:
    """Add the columns; their defaults are constants, so that no row is written."""
    op.execute("ALTER TABLE usage_events ADD COLUMN digest_version smallint NOT NULL DEFAULT 1")
    op.execute(
        "ALTER TABLE usage_events ADD COLUMN metadata_left_out boolean NOT NULL DEFAULT false"
    )


def downgrade() -> None:
    """Drop them; repetitions of what this release has recorded are then compared by version 1."""
    op.execute("ALTER TABLE usage_events DROP COLUMN metadata_left_out")
    op.execute("ALTER TABLE usage_events DROP COLUMN digest_version")
