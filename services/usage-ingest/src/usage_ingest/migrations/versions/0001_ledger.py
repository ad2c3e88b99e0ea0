"""The ledger, its reports, and the accounts they are billed to.

Revision ID: 0001
Revises:
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UP = """
CREATE TABLE billing_accounts (
    user_id            uuid PRIMARY KEY,
    stripe_customer_id text NOT NULL,
    generation         integer NOT NULL CHECK (generation >= 1),
    updated_at         timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE usage_events (
    event_id       uuid PRIMARY KEY,
    source         text NOT NULL,
    schema_version smallint NOT NULL CHECK (schema_version >= 1),
    digest         bytea NOT NULL CHECK (length(digest) = 32),
    user_id        uuid NOT NULL,
    server_id      text NOT NULL,
    tool_name      text NOT NULL,
    origin         text NOT NULL CHECK (origin IN ('direct', 'hub', 'job')),
    status         text NOT NULL CHECK (status IN ('succeeded', 'failed')),
    token_count    bigint CHECK (token_count >= 0),
    metadata       jsonb,
    readings       jsonb NOT NULL,
    occurred_at    timestamptz NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    billing_state  text NOT NULL
        CHECK (billing_state IN ('waiting', 'due', 'claimed', 'not_billable', 'expired')),
    claim_id       uuid,
    CHECK ((billing_state = 'claimed') = (claim_id IS NOT NULL)),
    CHECK ((billing_state = 'not_billable') = (readings = '{}'))
);
CREATE INDEX usage_events_due ON usage_events (occurred_at) WHERE billing_state = 'due';
CREATE INDEX usage_events_waiting ON usage_events (user_id) WHERE billing_state = 'waiting';
CREATE INDEX usage_events_waiting_since ON usage_events (occurred_at)
    WHERE billing_state = 'waiting';
CREATE INDEX usage_events_claim ON usage_events (claim_id) WHERE claim_id IS NOT NULL;
CREATE INDEX usage_events_user ON usage_events (user_id, occurred_at);

CREATE TABLE usage_reports (
    report_id          uuid PRIMARY KEY,
    claim_id           uuid NOT NULL,
    identifier         text NOT NULL UNIQUE CHECK (length(identifier) BETWEEN 1 AND 100),
    user_id            uuid NOT NULL,
    stripe_customer_id text NOT NULL,
    generation         integer NOT NULL,
    meter              text NOT NULL,
    value              bigint NOT NULL CHECK (value > 0 AND value <= 999999999999999),
    dimensions         jsonb NOT NULL,
    occurred_at        timestamptz NOT NULL,
    event_count        bigint NOT NULL CHECK (event_count > 0),
    created_at         timestamptz NOT NULL DEFAULT now(),
    state              text NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'forwarded', 'rejected', 'reported', 'superseded')),
    leased_until       timestamptz,
    forwarded_at       timestamptz,
    answered_at        timestamptz,
    reason             text,
    ever_unknown       boolean NOT NULL DEFAULT false,
    CHECK ((state IN ('rejected', 'superseded')) = (reason IS NOT NULL)),
    CHECK (state <> 'superseded' OR NOT ever_unknown)
);
CREATE UNIQUE INDEX usage_reports_standing ON usage_reports (claim_id, meter)
    WHERE state <> 'superseded';
CREATE INDEX usage_reports_pending ON usage_reports (created_at) WHERE state = 'pending';
CREATE INDEX usage_reports_forwarded ON usage_reports (created_at) WHERE state = 'forwarded';
CREATE INDEX usage_reports_rejected ON usage_reports (user_id) WHERE state = 'rejected';

CREATE VIEW billing_usage_events AS
SELECT e.user_id, e.tool_name, e.server_id, e.token_count, e.created_at,
       (SELECT r.identifier FROM usage_reports r
         WHERE r.claim_id = e.claim_id AND r.state = 'reported'
         ORDER BY r.meter LIMIT 1) AS stripe_event_id
  FROM usage_events e;

GRANT SELECT ON alembic_version, billing_usage_events TO usage_ingest;
GRANT SELECT, INSERT, UPDATE ON billing_accounts TO usage_ingest;
GRANT SELECT, INSERT, UPDATE (billing_state, claim_id) ON usage_events TO usage_ingest;
GRANT SELECT, INSERT,
      UPDATE (state, leased_until, forwarded_at, answered_at, reason, ever_unknown)
   ON usage_reports TO usage_ingest;
"""

DOWN = """
DROP VIEW billing_usage_events;
DROP TABLE usage_reports;
DROP TABLE usage_events;
DROP TABLE billing_accounts;
"""


def upgrade() -> None:
    """Create everything, with the facts immutable by grant."""
    for statement in UP.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop everything."""
    for statement in DOWN.split(";\n"):
        if statement.strip():
            op.execute(statement)
