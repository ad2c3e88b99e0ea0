"""What Stripe does not count, as it says after it has accepted it.

The mark stands beside the state, which stays ``accepted``: the previous release reads the states
and knows no other. For it a marked report is one that was counted, which it never sends again.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"

OLDEST_SERVED = "0001"

_COLUMNS = """
ALTER TABLE meter_calls ADD COLUMN accepted_key_n integer,
      ADD COLUMN rejected_later text, ADD COLUMN rejected_later_at timestamptz
"""

# Checked without a scan that would keep reports waiting: no row has a mark yet.
_CHECK = """
ALTER TABLE meter_calls ADD CONSTRAINT rejected_later_only_if_accepted
    CHECK ((rejected_later IS NULL) = (rejected_later_at IS NULL)
           AND (rejected_later IS NULL OR state = 'accepted')) NOT VALID
"""

_RULES = """
CREATE FUNCTION meter_calls_rejected_for_good() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what Stripe said later is never taken back' USING ERRCODE = 'check_violation';
END
$$
"""

_TRIGGER = """
CREATE TRIGGER rejected_for_good BEFORE UPDATE ON meter_calls
    FOR EACH ROW WHEN (OLD.rejected_later IS NOT NULL
                       AND (NEW.rejected_later, NEW.rejected_later_at)
                           IS DISTINCT FROM (OLD.rejected_later, OLD.rejected_later_at))
    EXECUTE FUNCTION meter_calls_rejected_for_good()
"""

# No foreign key: Stripe may name a report before its call is answered, or one that was lost.
_TABLE = """
CREATE TABLE late_rejections (
    identifier   text NOT NULL,
    key_n        integer NOT NULL CHECK (key_n >= 1),
    code         text NOT NULL,
    heard_at     timestamptz NOT NULL,
    verdict      text CHECK (verdict IN ('rejected', 'other_attempt', 'by_hand')),
    announced_at timestamptz,
    PRIMARY KEY (identifier, key_n),
    CHECK (announced_at IS NULL OR verdict = 'rejected')
)
"""

_INDEX = """
CREATE INDEX late_rejections_open ON late_rejections (heard_at)
 WHERE verdict IS NULL OR (verdict = 'rejected' AND announced_at IS NULL)
"""

# For a ledger that was restored from a backup: what Stripe has said since.
_MARKED = """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX meter_calls_rejected_later ON meter_calls (rejected_later_at)
 WHERE rejected_later_at IS NOT NULL
"""

_GRANTS = (
    """
    GRANT UPDATE (accepted_key_n, rejected_later, rejected_later_at)
    ON meter_calls TO stripe_reporter
    """,
    "GRANT SELECT, INSERT, UPDATE (verdict, announced_at) ON late_rejections TO stripe_reporter",
)


def upgrade() -> None:
    """Add the marks and the table of what was heard."""
    for statement in (_COLUMNS, _CHECK, _RULES, _TRIGGER, _TABLE, _INDEX, _MARKED, *_GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Drop both: what Stripe has given back is taken for counted then."""
    op.execute("DROP TABLE late_rejections")
    op.execute("DROP TRIGGER rejected_for_good ON meter_calls")
    op.execute("DROP FUNCTION meter_calls_rejected_for_good")
    op.execute(
        "ALTER TABLE meter_calls DROP COLUMN accepted_key_n, DROP COLUMN rejected_later,"
        " DROP COLUMN rejected_later_at"
    )
