"""Reports that Stripe had accepted and does not count, as it says later, and those of shadow mode.

A shadow report is never sent: its usage was reported in another way.

The constraints are replaced without a look at the rows, which satisfied narrower ones.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"

OLDEST_SERVED = "0001"

STATES = ("pending", "forwarded", "rejected", "reported", "rejected_later", "superseded", "shadow")
REFUSED = ("rejected", "rejected_later", "superseded")

NARROWER_STATES = tuple(state for state in STATES if state not in {"rejected_later", "shadow"})
NARROWER_REFUSED = tuple(state for state in REFUSED if state != "rejected_later")

UNFINISHED_VIEW = """
CREATE OR REPLACE VIEW viewer.unfinished_reports WITH (security_barrier) AS
SELECT user_id AS account_id, meter, occurred_at, state, reason, value
  FROM public.usage_reports
 WHERE user_id = viewer.account_id() AND state IN ('pending', 'forwarded', 'rejected')
"""

REJECTED_LATER_TOO = """ UNION ALL
SELECT user_id, meter, occurred_at, state, reason, value
  FROM public.usage_reports
 WHERE user_id = viewer.account_id() AND state = 'rejected_later'
"""

READER_IF_THERE = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'usage_reader') THEN
        GRANT SELECT ON viewer.shadow_reports TO usage_reader;
    END IF;
END $$
"""


def _constraints(states: tuple[str, ...], refused: tuple[str, ...]) -> tuple[str, ...]:
    def listed(names: tuple[str, ...]) -> str:
        return ", ".join(f"'{name}'" for name in names)

    return (
        # Replaced by wider ones, which the previous release satisfies, in this transaction.
        """
-- squawk-ignore ban-drop-constraint
ALTER TABLE usage_reports DROP CONSTRAINT usage_reports_state_check
""",
        """
-- squawk-ignore ban-drop-constraint
ALTER TABLE usage_reports DROP CONSTRAINT usage_reports_check
""",
        f"""
ALTER TABLE usage_reports
      ADD CONSTRAINT usage_reports_state_check CHECK (state IN ({listed(states)})) NOT VALID,
      ADD CONSTRAINT usage_reports_check
          CHECK ((state IN ({listed(refused)})) = (reason IS NOT NULL)) NOT VALID
""",
    )


UP = (
    *_constraints(STATES, REFUSED),
    """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX usage_reports_rejected_later ON usage_reports (user_id, occurred_at)
 WHERE state = 'rejected_later'
""",
    UNFINISHED_VIEW + REJECTED_LATER_TOO,
    """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX usage_reports_shadow ON usage_reports (user_id, occurred_at)
INCLUDE (meter, value) WHERE state = 'shadow'
""",
    """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX usage_reports_shadow_made ON usage_reports (created_at)
INCLUDE (meter, value) WHERE state = 'shadow'
""",
    """
CREATE VIEW viewer.shadow_reports WITH (security_barrier) AS
SELECT user_id AS account_id, meter, occurred_at, value
  FROM public.usage_reports
 WHERE user_id = viewer.account_id() AND state = 'shadow'
""",
    "GRANT SELECT ON viewer.shadow_reports TO usage_ingest",
    READER_IF_THERE,
)

DOWN = (
    "DROP VIEW viewer.shadow_reports",
    "DROP INDEX usage_reports_shadow_made",
    "DROP INDEX usage_reports_shadow",
    # Somebody else reported it: the previous release must not send it.
    "UPDATE usage_reports SET state = 'reported', answered_at = created_at WHERE state = 'shadow'",
    UNFINISHED_VIEW,
    "DROP INDEX usage_reports_rejected_later",
    # What Stripe gave back is taken for counted again: the previous release has no word for it.
    "UPDATE usage_reports SET state = 'reported', reason = NULL WHERE state = 'rejected_later'",
    *_constraints(NARROWER_STATES, NARROWER_REFUSED),
)


def upgrade() -> None:
    """Allow the states, and find their reports."""
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    """Forget what Stripe gave back, and take shadow reports for reported."""
    for statement in DOWN:
        op.execute(statement)
