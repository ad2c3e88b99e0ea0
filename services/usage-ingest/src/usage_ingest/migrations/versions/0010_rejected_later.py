"""Reports that Stripe had accepted and does not count, as it says later.

The constraints are replaced without a look at the rows, which satisfied narrower ones.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"

OLDEST_SERVED = "0001"

STATES = ("pending", "forwarded", "rejected", "reported", "rejected_later", "superseded")
REFUSED = ("rejected", "rejected_later", "superseded")

NARROWER_STATES = tuple(state for state in STATES if state != "rejected_later")
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
)

DOWN = (
    UNFINISHED_VIEW,
    "DROP INDEX usage_reports_rejected_later",
    # What Stripe gave back is taken for counted again: the previous release has no word for it.
    "UPDATE usage_reports SET state = 'reported', reason = NULL WHERE state = 'rejected_later'",
    *_constraints(NARROWER_STATES, NARROWER_REFUSED),
)


def upgrade() -> None:
    """Allow the state, and find its reports."""
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    """Forget what Stripe gave back."""
    for statement in DOWN:
        op.execute(statement)
