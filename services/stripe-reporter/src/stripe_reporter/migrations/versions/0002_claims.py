"""What a ledger restored from a backup needs of the reports it lost, and a way to find those.

On a journal of many millions of rows, make the index by hand before migrating, which then finds it:
``CREATE INDEX CONCURRENTLY meter_calls_started ON meter_calls (started_at)``. Made here it keeps
the journal from being written for some ten seconds per ten million rows; reports wait meanwhile.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

# Empty in rows of an older release. The role may insert them, by its grant on the table, and has no
# grant to update them.
_COLUMNS = """
ALTER TABLE meter_calls ADD COLUMN claim_id uuid, ADD COLUMN event_count bigint,
      ADD COLUMN dimensions jsonb
"""

_INDEX = """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS meter_calls_started ON meter_calls (started_at)
"""


def upgrade() -> None:
    """Add the columns and the index."""
    op.execute(_COLUMNS)
    op.execute(_INDEX)


def downgrade() -> None:
    """Drop both: a ledger that is lost can then be made whole only by hand."""
    op.execute("DROP INDEX meter_calls_started")
    op.execute(
        "ALTER TABLE meter_calls DROP COLUMN claim_id, DROP COLUMN event_count,"
        " DROP COLUMN dimensions"
    )
