"""Who pays for a user's runs, and what they have subscribed to.

- Assignments are only inserted: one that is overruled stays, since usage may have been claimed by
  it. `released` and `seen_at` are the sweep's, as those of `billing_accounts`.
- Subscriptions are a copy. Of each, `subscription_plans` keeps from when on which plan held, null
  while it did not run; `account_plans` is made from these when one changes. `subscription_periods`
  keeps its billing periods while it ran, and the meters that were billed with them; one that
  another overruled is empty. `account_period` is
  the rule of what an account's period is at a time, for limits and for unique tools.
- `user_id` of `billing_accounts` and of `usage_reports` is the id of the account. For a user who
  was never assigned that is the same; the columns keep the name that the release before this one
  reads.
- `late` marks reports of readings that came later than their runs.
- Waiting events are found by user and time, since each time may have another account.

Processes of the release before this one know no assignments: they claim a user's runs for the
user's own customer. So there must be none of them left when the first user is assigned.

On a table of many waiting events, make the index by hand before migrating, which finds it:
``CREATE INDEX CONCURRENTLY usage_events_waiting_by_time`` as below.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

OLDEST_SERVED = "0001"

UP = (
    """
CREATE TABLE account_assignments (
    user_id    uuid NOT NULL,
    since      timestamptz NOT NULL,
    revision   bigint NOT NULL CHECK (revision >= 1),
    account_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz,
    released   boolean NOT NULL DEFAULT false,
    PRIMARY KEY (user_id, since, revision)
)
""",
    "CREATE INDEX account_assignments_account ON account_assignments (account_id)",
    """
CREATE INDEX account_assignments_unreleased ON account_assignments (seen_at NULLS FIRST)
 WHERE NOT released
""",
    """
CREATE TABLE account_subscriptions (
    subscription_id    text PRIMARY KEY,
    account_id         uuid NOT NULL,
    stripe_customer_id text NOT NULL,
    revision           bigint NOT NULL CHECK (revision >= 1),
    plan_type          text,
    status             text NOT NULL,
    seats              bigint CHECK (seats >= 0),
    items              jsonb NOT NULL,
    period_start       timestamptz,
    period_end         timestamptz,
    trial_end          timestamptz,
    cancel_at          timestamptz,
    ended_at           timestamptz,
    as_of              timestamptz NOT NULL
)
""",
    "CREATE INDEX account_subscriptions_account ON account_subscriptions (account_id)",
    """
CREATE TABLE subscription_plans (
    subscription_id text NOT NULL,
    since           timestamptz NOT NULL,
    plan_type       text,
    PRIMARY KEY (subscription_id, since)
)
""",
    """
CREATE TABLE account_plans (
    account_id uuid NOT NULL,
    since      timestamptz NOT NULL,
    plan_type  text,
    PRIMARY KEY (account_id, since)
)
""",
    """
CREATE TABLE subscription_periods (
    subscription_id text NOT NULL,
    period_start    timestamptz NOT NULL,
    period_end      timestamptz NOT NULL,
    meters          text[] NOT NULL,
    PRIMARY KEY (subscription_id, period_start),
    CHECK (period_start <= period_end)
)
""",
    # Stripe's period of a subscription, first of one that gives the account's plan, else the UTC
    # month. The period after the last one that is known begins where that ended and is
    # expected to be as long: Stripe announces it only after it began.
    """
CREATE FUNCTION account_period(account uuid, at timestamptz)
RETURNS TABLE (period_start timestamptz, period_end timestamptz, basis text)
LANGUAGE sql STABLE AS $$
SELECT coalesce(known.begins, date_trunc('month', at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'),
       coalesce(known.ends, (date_trunc('month', at AT TIME ZONE 'UTC') + interval '1 month')
                            AT TIME ZONE 'UTC'),
       CASE WHEN known.begins IS NULL THEN 'utc_month' ELSE 'stripe' END
  FROM (VALUES (1)) always
  LEFT JOIN LATERAL (
       SELECT p.begins, p.ends
         FROM account_subscriptions s
         JOIN subscription_periods h USING (subscription_id)
        CROSS JOIN LATERAL (
              SELECT h.period_start AS begins, h.period_end AS ends, false AS expected
               UNION ALL
              SELECT h.period_end,
                     (h.period_end AT TIME ZONE 'UTC' + age(h.period_end AT TIME ZONE 'UTC',
                                                            h.period_start AT TIME ZONE 'UTC'))
                     AT TIME ZONE 'UTC', true
               WHERE s.ended_at IS NULL AND s.period_end = h.period_end) p
        WHERE s.account_id = account AND h.period_start <= at AND p.begins <= at AND at < p.ends
        ORDER BY s.plan_type IS NOT DISTINCT FROM (
                     SELECT plan_type FROM account_plans
                      WHERE account_id = account AND since <= at ORDER BY since DESC LIMIT 1) DESC,
                 p.expected, p.begins DESC, s.subscription_id
        LIMIT 1) known ON true
$$
""",
    """
CREATE VIEW user_subscriptions AS
SELECT u.user_id, s.account_id, s.subscription_id, s.plan_type, s.status, s.seats,
       s.period_start, s.period_end, s.trial_end, s.cancel_at, s.ended_at, s.as_of
  FROM account_subscriptions s
  JOIN (SELECT user_id, account_id
          FROM (SELECT DISTINCT ON (user_id) user_id, account_id FROM account_assignments
                 WHERE since <= now() ORDER BY user_id, since DESC, revision DESC) assigned
         UNION ALL
        SELECT DISTINCT own.account_id, own.account_id
          FROM account_subscriptions own
         WHERE NOT EXISTS (SELECT FROM account_assignments a
                            WHERE a.user_id = own.account_id AND a.since <= now())
       ) u USING (account_id)
""",
    "GRANT SELECT, INSERT, UPDATE (seen_at, released) ON account_assignments TO usage_ingest",
    "GRANT SELECT, INSERT, UPDATE ON account_subscriptions TO usage_ingest",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON subscription_plans, account_plans TO usage_ingest",
    "GRANT SELECT, INSERT, UPDATE (period_end, meters) ON subscription_periods TO usage_ingest",
    "GRANT SELECT ON user_subscriptions TO usage_ingest",
    "ALTER TABLE usage_reports ADD COLUMN late boolean NOT NULL DEFAULT false",
    """
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_index
                WHERE indexrelid = to_regclass('usage_events_waiting_by_time')
                  AND NOT indisvalid) THEN
        DROP INDEX usage_events_waiting_by_time;
    END IF;
END $$
""",
    """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS usage_events_waiting_by_time ON usage_events (user_id, occurred_at)
 WHERE billing_state = 'waiting'
""",
    """
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX usage_events_waiting
""",
)

DOWN = (
    "CREATE INDEX usage_events_waiting ON usage_events (user_id) WHERE billing_state = 'waiting'",
    "DROP INDEX usage_events_waiting_by_time",
    "ALTER TABLE usage_reports DROP COLUMN late",
    "DROP VIEW user_subscriptions",
    "DROP FUNCTION account_period",
    "DROP TABLE subscription_periods",
    "DROP TABLE account_plans",
    "DROP TABLE subscription_plans",
    "DROP TABLE account_subscriptions",
    "DROP TABLE account_assignments",
)


def upgrade() -> None:
    """Create the tables and the view; the new column has a constant default: no row is written."""
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    """Drop them. What is unclaimed is then claimed for the users' own customers."""
    for statement in DOWN:
        op.execute(statement)
