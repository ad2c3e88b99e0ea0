"""What the usage API may read: views in a schema of their own, filtered by who asks.

The role ``usage_reader`` has rights on this schema alone. Each view shows the rows of the user or
account that the transaction has set (``nexus.user_id``, ``nexus.account_id``), and none without.
``viewer.ask`` and ``viewer.used`` set them and read the views in one call, with no more rights than
their caller has. Policies on the tables could not do this: a delta of totals has rows of many
users. Nor would they be free: the service, which writes these tables, would be subject to them.

The role may be made later than this migration: then the statements ``GRANTS`` are run by hand, as
the owner (docs/operations.md has them).

On tables of many millions of reports, make ``usage_reports_unfinished`` by hand before migrating,
which finds it: ``CREATE INDEX CONCURRENTLY`` as below. Made here it keeps reports from being
written meanwhile.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

OLDEST_SERVED = "0001"

GRANTS = """\
GRANT USAGE ON SCHEMA viewer TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA viewer TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA viewer TO {role}"""

READER_IF_THERE = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'usage_reader') THEN
        {};
    END IF;
END $$
""".format(GRANTS.format(role="usage_reader"))

SETTING = """
CREATE FUNCTION viewer.{0}() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT nullif(current_setting('nexus.{0}', true), '')::uuid $$
"""

UP = (
    """
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_index
                WHERE indexrelid = to_regclass('usage_reports_unfinished') AND NOT indisvalid) THEN
        DROP INDEX usage_reports_unfinished;
    END IF;
END $$
""",
    # An account's reports that Stripe has not counted are few, those that it has are not.
    """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS usage_reports_unfinished ON usage_reports (user_id, occurred_at)
 WHERE state IN ('pending', 'forwarded', 'rejected')
""",
    "CREATE SCHEMA viewer",
    SETTING.format("user_id"),
    SETTING.format("account_id"),
    # The account that the user is in now, and whether the ledger knows either of them.
    """
CREATE VIEW viewer.accounts WITH (security_barrier) AS
SELECT a.user_id, a.account_id,
       a.assigned
       OR EXISTS (SELECT FROM public.billing_accounts b WHERE b.user_id = a.account_id)
       OR EXISTS (SELECT FROM public.account_subscriptions s WHERE s.account_id = a.account_id)
       OR EXISTS (SELECT FROM public.usage_events e
                   WHERE e.user_id = a.user_id AND e.billing_state = 'waiting') AS known
  FROM (SELECT viewer.user_id() AS user_id, coalesce(n.account_id, viewer.user_id()) AS account_id,
               n.account_id IS NOT NULL AS assigned
          FROM (VALUES (1)) one
          LEFT JOIN LATERAL (
               SELECT account_id FROM public.account_assignments
                WHERE user_id = viewer.user_id() AND since <= now()
                ORDER BY since DESC, revision DESC LIMIT 1) n ON true) a
 WHERE a.user_id IS NOT NULL
""",
    # Of the account that is set; without one, of the user's, whose plan each member may see.
    """
CREATE VIEW viewer.plans WITH (security_barrier) AS
SELECT p.account_id, p.since, p.plan_type
  FROM public.account_plans p
 WHERE p.account_id = coalesce(viewer.account_id(), (SELECT account_id FROM viewer.accounts))
   AND p.since <= now()
""",
    """
CREATE VIEW viewer.subscriptions WITH (security_barrier) AS
SELECT s.account_id, s.plan_type, s.status, s.seats, s.period_start, s.period_end, s.trial_end,
       s.cancel_at, s.ended_at
  FROM public.account_subscriptions s
 WHERE s.account_id = coalesce(viewer.account_id(), (SELECT account_id FROM viewer.accounts))
""",
    """
CREATE VIEW viewer.hourly_usage WITH (security_barrier) AS
SELECT user_id, hour, server_id, tool_name, runs, billable_runs, tokens
  FROM public.hourly_usage
 WHERE user_id = viewer.user_id()
""",
    """
CREATE VIEW viewer.hourly_amounts WITH (security_barrier) AS
SELECT account_id, meter, hour, value
  FROM public.hourly_amounts
 WHERE account_id = viewer.account_id()
""",
    # A right to call amount_between would be one to ask about every account.
    """
CREATE FUNCTION viewer.amount_between(of_meter text, since timestamptz, until timestamptz)
    RETURNS bigint LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp
    AS $$ BEGIN
    RETURN public.amount_between(viewer.account_id(), of_meter, since, until);
END $$
""",
    # Likewise.
    """
CREATE FUNCTION viewer.account_period(at timestamptz)
    RETURNS TABLE (period_start timestamptz, period_end timestamptz, basis text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
    AS $$ SELECT * FROM public.account_period(
              coalesce(viewer.account_id(), (SELECT a.account_id FROM viewer.accounts a)), at) $$
""",
    """
CREATE VIEW viewer.unfinished_reports WITH (security_barrier) AS
SELECT user_id AS account_id, meter, occurred_at, state, reason, value
  FROM public.usage_reports
 WHERE user_id = viewer.account_id() AND state IN ('pending', 'forwarded', 'rejected')
""",
    # The account of a waiting run is the one that its user was in when it ended.
    """
CREATE VIEW viewer.waiting_runs WITH (security_barrier) AS
SELECT viewer.account_id() AS account_id, e.occurred_at, e.readings
  FROM (SELECT viewer.account_id() AS user_id WHERE viewer.account_id() IS NOT NULL
         UNION
        SELECT user_id FROM public.account_assignments WHERE account_id = viewer.account_id()) m
  JOIN public.usage_events e ON e.user_id = m.user_id AND e.billing_state = 'waiting'
 WHERE viewer.account_id() = coalesce(
       (SELECT a.account_id FROM public.account_assignments a
         WHERE a.user_id = e.user_id AND a.since <= e.occurred_at
         ORDER BY a.since DESC, a.revision DESC LIMIT 1), e.user_id)
""",
    """
CREATE VIEW viewer.progress AS
SELECT bool_and(as_of IS NOT NULL) AS complete,
       CASE WHEN pg_is_in_recovery() THEN pg_last_xact_replay_timestamp() ELSE now() END AS as_of
  FROM public.totals_progress
""",
    # The account is set, for the rest of the transaction, only if it is one of ``readable`` (null:
    # any). The statements of a function run one after the other, so the views see what was set; and
    # their plans are kept with the session.
    """
CREATE FUNCTION viewer.ask(of_user uuid, of_account uuid, readable uuid[])
    RETURNS TABLE (account_id uuid, may_read boolean, known boolean, plan_type text,
                   subscriptions jsonb, complete boolean, as_of timestamptz,
                   period_start timestamptz, period_end timestamptz, basis text)
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('nexus.user_id', of_user::text, true),
            set_config('nexus.account_id', '', true);
    SELECT coalesce(of_account, a.account_id), a.known INTO account_id, known
      FROM viewer.accounts a;
    may_read := readable IS NULL OR account_id = ANY(readable);
    IF may_read THEN
        PERFORM set_config('nexus.account_id', account_id::text, true);
    END IF;
    SELECT p.complete, p.as_of,
           (SELECT s.plan_type FROM viewer.plans s ORDER BY s.since DESC LIMIT 1),
           (SELECT jsonb_agg(to_jsonb(s) ORDER BY s.period_start DESC NULLS LAST)
              FROM viewer.subscriptions s WHERE s.ended_at IS NULL)
      INTO complete, as_of, plan_type, subscriptions
      FROM viewer.progress p;
    SELECT p.period_start, p.period_end, p.basis INTO period_start, period_end, basis
      FROM viewer.account_period(as_of) p;
    RETURN NEXT;
END $$
""",
    # What an account has used of meters in a span. Of runs that wait, at most ``most``: their sums
    # by key of readings, and, without a name, their number.
    """
CREATE FUNCTION viewer.used(
    of_account uuid, meters text[], since timestamptz, until timestamptz, most integer)
    RETURNS TABLE (name text, waits boolean, value bigint)
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('nexus.account_id', of_account::text, true);
    RETURN QUERY
    WITH w AS MATERIALIZED (
        SELECT readings FROM viewer.waiting_runs
         WHERE occurred_at >= since AND occurred_at < until LIMIT most)
    SELECT m.name, false, viewer.amount_between(m.name, since, until)
      FROM unnest(meters) AS m(name)
     UNION ALL
    SELECT r.key, true, sum(r.value::bigint)::bigint
      FROM w CROSS JOIN LATERAL jsonb_each_text(w.readings) r(key, value)
     GROUP BY r.key
     UNION ALL
    SELECT NULL, true, count(*) FROM w;
END $$
""",
    "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA viewer FROM PUBLIC",
    *GRANTS.format(role="usage_ingest").split(";\n"),
    READER_IF_THERE,
)

DOWN = (
    "DROP SCHEMA viewer CASCADE",
    "DROP INDEX usage_reports_unfinished",
)


def upgrade() -> None:
    """Create the schema; no row of a table is written."""
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    """Drop it; the role ``usage_reader`` stays, without rights on anything."""
    for statement in DOWN:
        op.execute(statement)
