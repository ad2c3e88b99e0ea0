"""What comes later to a run, or depends on who pays: its price, and a tool's first use in a period.

- Prices are kept once, by an id of their content. The details of a run name the price that its
  tokens were read by, so the price is frozen with the run.
- A run whose model had no price is kept apart until the table has one. Its cost is then a reading
  beside the event, which has a claim of its own: the event itself never changes.
- A tool's first use by an account in a period is a row, and a tool has one in periods that overlap.

Nothing of the tables that are there changes but for a column without a default: processes of the
releases before this one work on. They record no prices, and take no first uses. They would claim
a route as if it were a meter: there must be none of them left when `PLANS_FILE` is set.

On a table of many millions of reports, make the index by hand before migrating, which finds it:
``CREATE INDEX CONCURRENTLY usage_reports_late`` as below. It will be empty.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

OLDEST_SERVED = "0001"

UP = (
    """
CREATE TABLE model_prices (
    price_id      uuid PRIMARY KEY,
    model         text NOT NULL,
    valid_from    timestamptz NOT NULL,
    input         bigint NOT NULL CHECK (input >= 0),
    output        bigint NOT NULL CHECK (output >= 0),
    cached        bigint NOT NULL CHECK (cached >= 0),
    cached_tokens text NOT NULL CHECK (cached_tokens IN ('part', 'addition')),
    source        text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now()
)
""",
    "ALTER TABLE usage_details ADD COLUMN price_id uuid",
    """
CREATE TABLE unpriced_runs (
    event_id    uuid PRIMARY KEY,
    key         text NOT NULL,
    model       text NOT NULL,
    occurred_at timestamptz NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    state       text NOT NULL DEFAULT 'unpriced'
        CHECK (state IN ('unpriced', 'priced', 'given_up'))
)
""",
    """
CREATE INDEX unpriced_runs_model ON unpriced_runs (model, occurred_at) WHERE state = 'unpriced'
""",
    """
CREATE INDEX unpriced_runs_time ON unpriced_runs (occurred_at) WHERE state = 'unpriced'
""",
    """
CREATE TABLE late_readings (
    event_id      uuid NOT NULL,
    key           text NOT NULL,
    value         bigint NOT NULL CHECK (value > 0),
    price_id      uuid NOT NULL,
    occurred_at   timestamptz NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    billing_state text NOT NULL DEFAULT 'due'
        CHECK (billing_state IN ('due', 'claimed', 'expired')),
    claim_id      uuid,
    PRIMARY KEY (event_id, key),
    CHECK ((billing_state = 'claimed') = (claim_id IS NOT NULL))
)
""",
    "CREATE INDEX late_readings_due ON late_readings (occurred_at) WHERE billing_state = 'due'",
    "CREATE INDEX late_readings_claim ON late_readings (claim_id) WHERE claim_id IS NOT NULL",
    """
CREATE TABLE first_uses (
    account_id   uuid NOT NULL,
    server_id    text NOT NULL,
    tool_name    text NOT NULL,
    period_start timestamptz NOT NULL,
    period_end   timestamptz NOT NULL,
    claim_id     uuid NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, server_id, tool_name, period_start),
    CHECK (period_start < period_end)
)
""",
    """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS usage_reports_late ON usage_reports (user_id, occurred_at) WHERE late
""",
    "GRANT SELECT, INSERT ON model_prices, first_uses TO usage_ingest",
    "GRANT SELECT, INSERT, UPDATE (state) ON unpriced_runs TO usage_ingest",
    "GRANT SELECT, INSERT, UPDATE (billing_state, claim_id) ON late_readings TO usage_ingest",
)

DOWN = (
    "DROP INDEX usage_reports_late",
    "DROP TABLE first_uses",
    "DROP TABLE late_readings",
    "DROP TABLE unpriced_runs",
    "ALTER TABLE usage_details DROP COLUMN price_id",
    "DROP TABLE model_prices",
)


def upgrade() -> None:
    """Create the tables and the column."""
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    """Drop them. What lacks a price stays unbilled, and tools are counted anew after an upgrade."""
    for statement in DOWN:
        op.execute(statement)
