"""Which of Stripe's sums are read next, and how far the journal was followed for it.

On a journal of many millions of rows, make the index by hand before migrating, which then finds it:
``CREATE INDEX CONCURRENTLY meter_calls_answered`` as below. Made here it keeps the journal from
being written for some ten seconds per ten million rows.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"

OLDEST_SERVED = "0001"

UP = (
    """
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_index
                WHERE indexrelid = to_regclass('meter_calls_answered') AND NOT indisvalid) THEN
        DROP INDEX meter_calls_answered;
    END IF;
END $$
""",
    # In the order of answers, so that one that comes late, or from a person, is followed too.
    """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS meter_calls_answered ON meter_calls (answered_at, identifier)
 WHERE answered_at IS NOT NULL
""",
    # A reading that fails is tried again later, and stays wanted since it was first due. `since` is
    # the oldest usage with an answer after `renewed_at`, and `since_before` that of the day before:
    # a customer who is always active would otherwise have ever more hours to read.
    """
CREATE TABLE summaries_due (
    stripe_customer_id text NOT NULL,
    meter              text NOT NULL,
    since              timestamptz,
    since_before       timestamptz,
    renewed_at         timestamptz NOT NULL DEFAULT now(),
    active_at          timestamptz NOT NULL,
    wanted_at          timestamptz NOT NULL,
    next_try           timestamptz NOT NULL,
    read_at            timestamptz,
    PRIMARY KEY (stripe_customer_id, meter)
)
""",
    "CREATE INDEX summaries_due_next_try ON summaries_due (next_try)",
    "CREATE INDEX summaries_due_wanted ON summaries_due (wanted_at)",
    "CREATE INDEX summaries_due_active ON summaries_due (meter, active_at)",
    """
CREATE TABLE summaries_place (
    single      boolean PRIMARY KEY DEFAULT true CHECK (single),
    answered_at timestamptz NOT NULL,
    identifier  text NOT NULL
)
""",
    # What was answered before is older than the days that every customer is read of, or soon is.
    "INSERT INTO summaries_place (answered_at, identifier) VALUES (now() - interval '35 days', '')",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON summaries_due TO stripe_reporter",
    "GRANT SELECT, UPDATE ON summaries_place TO stripe_reporter",
)

DOWN = (
    "DROP TABLE summaries_place",
    "DROP TABLE summaries_due",
    "DROP INDEX meter_calls_answered",
)


def upgrade() -> None:
    """Create the index and the tables; no row of the journal is written."""
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    """Drop them: nothing is read any more."""
    for statement in DOWN:
        op.execute(statement)
