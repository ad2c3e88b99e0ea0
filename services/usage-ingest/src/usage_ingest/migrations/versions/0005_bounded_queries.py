"""What keeps the ledger as fast with ten million rows as with few.

- The sweep looks at accounts whose usage may not all be released. It looks once, in portions, at
  all that exist now, and at those that a process of an earlier release inserts meanwhile. Nothing
  is added to the grants: the service may update whole accounts.
- The index of events by user goes: every event had a random page of it written. Recovery, which
  alone read it, finds a user's unclaimed events by their minute.
- Superseded reports are found by their claim.

On tables of many millions of rows, make two indexes by hand before migrating, which finds them:
``CREATE INDEX CONCURRENTLY usage_events_unclaimed`` and ``usage_reports_superseded`` as below. Made
here they keep their tables from being written while they are read once, some seconds for ten
million rows. An index whose making was interrupted exists, but no query uses it: it is made again.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OLDEST_SERVED = "0001"

BY_HAND = ("usage_events_unclaimed", "usage_reports_superseded")

DROP_IF_INVALID = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('{0}') AND NOT indisvalid) THEN
        DROP INDEX {0};
    END IF;
END $$
"""

UP = (
    *map(DROP_IF_INVALID.format, BY_HAND),
    "ALTER TABLE billing_accounts ADD COLUMN seen_at timestamptz",
    "ALTER TABLE billing_accounts ADD COLUMN released boolean NOT NULL DEFAULT false",
    """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX billing_accounts_unreleased ON billing_accounts (seen_at NULLS FIRST)
 WHERE NOT released
""",
    """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX billing_accounts_replaced ON billing_accounts (user_id) WHERE generation > 1
""",
    """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS usage_events_unclaimed
    ON usage_events (date_trunc('minute', occurred_at AT TIME ZONE 'UTC'), user_id)
 WHERE billing_state IN ('waiting', 'due', 'expired')
""",
    """
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX usage_events_user
""",
    """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS usage_reports_superseded ON usage_reports (claim_id)
 WHERE state = 'superseded'
""",
)

DOWN = (
    "DROP INDEX usage_reports_superseded",
    "CREATE INDEX usage_events_user ON usage_events (user_id, occurred_at)",
    "DROP INDEX usage_events_unclaimed",
    "DROP INDEX billing_accounts_replaced",
    "ALTER TABLE billing_accounts DROP COLUMN released",
    "ALTER TABLE billing_accounts DROP COLUMN seen_at",
)


def upgrade() -> None:
    """Add the columns, with no or a constant default, so that no row is written; and indexes."""
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    """Drop them; the release before this one looks at all accounts in each sweep."""
    for statement in DOWN:
        op.execute(statement)
