"""What events of version 2 say beyond version 1, in a row of its own beside the event.

Nothing of the tables that are there changes: processes of the releases before this one work on.
No foreign key holds the rows together. Its check would lock the event's row, for which a claim of
many events may have to wait; and an event is never deleted. The service's role may insert details,
and neither change nor delete them.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OLDEST_SERVED = "0001"

UP = (
    """
CREATE TABLE usage_details (
    event_id       uuid PRIMARY KEY,
    digest         bytea NOT NULL CHECK (length(digest) = 32),
    digest_version smallint NOT NULL CHECK (digest_version >= 1),
    model          text,
    input_tokens   bigint CHECK (input_tokens >= 0),
    output_tokens  bigint CHECK (output_tokens >= 0),
    cached_tokens  bigint CHECK (cached_tokens >= 0),
    created_at     timestamptz NOT NULL DEFAULT now()
)
""",
    "GRANT SELECT, INSERT ON usage_details TO usage_ingest",
    """
CREATE OR REPLACE VIEW billing_usage_events AS
SELECT e.user_id, e.tool_name, e.server_id, e.token_count, e.created_at,
       (SELECT r.identifier FROM usage_reports r
         WHERE r.claim_id = e.claim_id AND r.state = 'reported'
         ORDER BY r.meter LIMIT 1) AS stripe_event_id,
       d.model, d.input_tokens, d.output_tokens, d.cached_tokens
  FROM usage_events e
  LEFT JOIN usage_details d USING (event_id)
""",
)

DOWN = (
    "DROP VIEW billing_usage_events",
    """
CREATE VIEW billing_usage_events AS
SELECT e.user_id, e.tool_name, e.server_id, e.token_count, e.created_at,
       (SELECT r.identifier FROM usage_reports r
         WHERE r.claim_id = e.claim_id AND r.state = 'reported'
         ORDER BY r.meter LIMIT 1) AS stripe_event_id
  FROM usage_events e
""",
    "GRANT SELECT ON billing_usage_events TO usage_ingest",
    "DROP TABLE usage_details",
)


def upgrade() -> None:
    """Create the table, and show it at the end of the view."""
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    """Drop them. The details are lost, and a version 2 that comes again is then a dead letter."""
    for statement in DOWN:
        op.execute(statement)
