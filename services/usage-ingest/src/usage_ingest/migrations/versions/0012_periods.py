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
        CHECK (placement IN ('in_grace', 'after_finalisation', 'not_subscribed', 'not_charged',
                             'ended_early', 'unknown'))
)
""",
    "ALTER TABLE subscription_periods ADD COLUMN ended_early boolean NOT NULL DEFAULT false",
    # Those that later news of subscriptions may place elsewhere.
    """
CREATE INDEX report_placements_open ON report_placements (account_id, report_id)
 WHERE placement IN ('not_subscribed', 'not_charged', 'unknown')
""",
    "CREATE INDEX report_placements_answered ON report_placements (answered_at)",
    # Reports to be placed, or placed `again`. They are queued as the ledger gets their answers: it
    # may get one days after its time. What was accepted before this release is not placed: its
    # periods are not known.
    """
CREATE TABLE placements_due (
    report_id uuid PRIMARY KEY,
    queued_at timestamptz NOT NULL DEFAULT now(),
    again     boolean NOT NULL DEFAULT false
)
""",
    "CREATE INDEX placements_due_queued ON placements_due (queued_at)",
    # The row of one that is queued already is locked: placed now, it would be placed without this.
    """
CREATE FUNCTION queue_placement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO placements_due (report_id) VALUES (NEW.report_id)
    ON CONFLICT (report_id) DO UPDATE SET queued_at = excluded.queued_at;
    RETURN NULL;
END
$$
""",
    # A report that is rejected later is on no invoice, and is no longer placed.
    """
CREATE TRIGGER queue_placement AFTER UPDATE OF state ON usage_reports FOR EACH ROW
    WHEN (NEW.state IN ('reported', 'rejected_later') AND NEW.state <> OLD.state)
    EXECUTE FUNCTION queue_placement()
""",
    # Recovery inserts reports that were answered before.
    """
CREATE TRIGGER queue_restored_placement AFTER INSERT ON usage_reports FOR EACH ROW
    WHEN (NEW.state = 'reported') EXECUTE FUNCTION queue_placement()
""",
    # For the windows that have a period's border in them.
    """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX subscription_periods_start ON subscription_periods (period_start)
""",
    """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX subscription_periods_end ON subscription_periods (period_end)
""",
    "GRANT UPDATE (ended_early) ON subscription_periods TO usage_ingest",
    "GRANT SELECT, INSERT, UPDATE ON subscriptions_read TO usage_ingest",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON report_placements TO usage_ingest",
    "GRANT SELECT, INSERT, UPDATE (queued_at), DELETE ON placements_due TO usage_ingest",
)

DOWN = (
    "DROP INDEX subscription_periods_end",
    "DROP INDEX subscription_periods_start",
    "DROP TRIGGER queue_restored_placement ON usage_reports",
    "DROP TRIGGER queue_placement ON usage_reports",
    "DROP FUNCTION queue_placement",
    "DROP TABLE placements_due",
    "DROP TABLE report_placements",
    "ALTER TABLE subscription_periods DROP COLUMN ended_early",
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
