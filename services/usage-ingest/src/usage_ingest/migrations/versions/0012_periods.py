"""Which reports are on no invoice, or came late for theirs.

Revision ID: 0012
Revises: 0011
"""

from alembic import op

revision = "0012"
down_revision = "0011"

OLDEST_SERVED = "0001"

UP = (
    """
CREATE TABLE subscriptions_read (
    single   boolean PRIMARY KEY DEFAULT true CHECK (single),
    began_at timestamptz NOT NULL
)
""",
    # Reports that Stripe accepted, but for those that came in their period.
    """
CREATE TABLE report_placements (
    report_id   uuid PRIMARY KEY,
    account_id  uuid NOT NULL,
    meter       text NOT NULL,
    value       bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    answered_at timestamptz NOT NULL,
    placement   text NOT NULL
        CHECK (placement IN ('in_grace', 'after_finalisation', 'not_subscribed', 'unknown'))
)
""",
    # Those that later news of subscriptions may place elsewhere.
    """
CREATE INDEX report_placements_open ON report_placements (account_id)
 WHERE placement IN ('not_subscribed', 'unknown')
""",
    "CREATE INDEX report_placements_answered ON report_placements (answered_at)",
    """
CREATE TABLE placements_place (
    single      boolean PRIMARY KEY DEFAULT true CHECK (single),
    answered_at timestamptz NOT NULL,
    report_id   uuid NOT NULL
)
""",
    # What was accepted before this release is not placed: its periods are not known.
    """
INSERT INTO placements_place (answered_at, report_id)
VALUES (now(), '00000000-0000-0000-0000-000000000000')
""",
    "GRANT SELECT, INSERT, UPDATE ON subscriptions_read TO usage_ingest",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON report_placements TO usage_ingest",
    "GRANT SELECT, UPDATE ON placements_place TO usage_ingest",
)

DOWN = (
    "DROP TABLE placements_place",
    "DROP TABLE report_placements",
    "DROP TABLE subscriptions_read",
)


def upgrade() -> None:
    """Create the tables; no row of another is written."""
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    for statement in DOWN:
        op.execute(statement)
