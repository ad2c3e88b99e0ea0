"""Totals by hour: of runs by user, server and tool, and of reported amounts by account and meter.

Triggers append what was really inserted, one row for each statement, in its transaction. So all who
write are counted: processes of the release before this one, recovery, and corrections by hand. A
job of the service folds these deltas into the totals. The views show both, so folding changes
nothing of what they show.

What is in the ledger already is added by ``usage-ingest totals --rebuild``, while everything runs.
Until then ``totals_progress.as_of`` is null, unless the ledger is empty.

The triggers are made under a lock that keeps usage from being recorded for milliseconds. On a table
of many millions of reports, make ``usage_reports_hour`` by hand before migrating, which finds it:
``CREATE INDEX CONCURRENTLY`` as below. Made here it keeps reports from being written meanwhile.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

OLDEST_SERVED = "0001"

UP = (
    """
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_index
                WHERE indexrelid = to_regclass('usage_reports_hour') AND NOT indisvalid) THEN
        DROP INDEX usage_reports_hour;
    END IF;
END $$
""",
    # Of an account's reports only those at the edges of a period are read. The hour comes first:
    # new entries are neighbours, however many accounts there are.
    """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS usage_reports_hour
    ON usage_reports (date_bin('1 hour', occurred_at, timestamptz 'epoch'), user_id)
""",
    # A row for each statement, with ``size`` elements in each array, one for each run. It lives for
    # seconds, and compressing it would cost more than writing it.
    """
CREATE TABLE usage_deltas (
    delta_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    size      integer NOT NULL,
    user_id   uuid[] NOT NULL,
    hour      timestamptz[] NOT NULL,
    server_id text[] NOT NULL,
    tool_name text[] NOT NULL,
    billable  boolean[] NOT NULL,
    tokens    bigint[] NOT NULL
)
""",
    """
ALTER TABLE usage_deltas
    ALTER user_id SET STORAGE EXTERNAL, ALTER hour SET STORAGE EXTERNAL,
    ALTER server_id SET STORAGE EXTERNAL, ALTER tool_name SET STORAGE EXTERNAL,
    ALTER tokens SET STORAGE EXTERNAL
""",
    """
CREATE TABLE amount_deltas (
    delta_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    size       integer NOT NULL,
    account_id uuid[] NOT NULL,
    meter      text[] NOT NULL,
    hour       timestamptz[] NOT NULL,
    value      bigint[] NOT NULL
)
""",
    # Deltas live for seconds: without this their tables would grow until a fifth of them is dead.
    """
ALTER TABLE usage_deltas SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500)
""",
    """
ALTER TABLE amount_deltas
  SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500)
""",
    # The free space lets an update stay on its page, which no index hears of.
    """
CREATE TABLE folded_usage (
    user_id       uuid NOT NULL,
    hour          timestamptz NOT NULL,
    server_id     text NOT NULL,
    tool_name     text NOT NULL,
    runs          bigint NOT NULL,
    billable_runs bigint NOT NULL,
    tokens        bigint NOT NULL,
    PRIMARY KEY (user_id, hour, server_id, tool_name)
) WITH (fillfactor = 80)
""",
    """
CREATE TABLE folded_amounts (
    account_id uuid NOT NULL,
    meter      text NOT NULL,
    hour       timestamptz NOT NULL,
    value      bigint NOT NULL,
    PRIMARY KEY (account_id, meter, hour)
) WITH (fillfactor = 80)
""",
    """
CREATE TABLE totals_progress (
    part  text PRIMARY KEY CHECK (part IN ('usage', 'amounts')),
    as_of timestamptz
)
""",
    """
INSERT INTO totals_progress (part, as_of)
VALUES ('usage', (SELECT now() WHERE NOT EXISTS (SELECT FROM usage_events))),
       ('amounts', (SELECT now() WHERE NOT EXISTS (SELECT FROM usage_reports)))
""",
    """
CREATE TABLE touched_amounts (
    account_id   uuid NOT NULL,
    meter        text NOT NULL,
    hour         timestamptz NOT NULL,
    touched_at   timestamptz NOT NULL,
    leased_until timestamptz,
    PRIMARY KEY (account_id, meter)
)
""",
    """
CREATE TABLE thresholds_sent (
    account_id    uuid NOT NULL,
    meter         text NOT NULL,
    period_start  timestamptz NOT NULL,
    limit_name    text NOT NULL,
    limit_value   bigint NOT NULL,
    share_percent smallint NOT NULL CHECK (share_percent BETWEEN 1 AND 100),
    used          bigint NOT NULL,
    sent_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, meter, period_start, limit_name, limit_value, share_percent)
)
""",
    """
CREATE FUNCTION append_usage_delta() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_deltas (size, user_id, hour, server_id, tool_name, billable, tokens)
    SELECT count(*), array_agg(user_id),
           array_agg(date_bin('1 hour', occurred_at, timestamptz 'epoch')),
           array_agg(server_id), array_agg(tool_name),
           array_agg(billing_state <> 'not_billable'), array_agg(coalesce(token_count, 0))
      FROM added
    HAVING count(*) > 0;
    RETURN NULL;
END $$
""",
    """
CREATE TRIGGER append_usage_delta AFTER INSERT ON usage_events
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION append_usage_delta()
""",
    """
CREATE FUNCTION append_amount_delta() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO amount_deltas (size, account_id, meter, hour, value)
    SELECT count(*), array_agg(user_id), array_agg(meter),
           array_agg(date_bin('1 hour', occurred_at, timestamptz 'epoch')), array_agg(value)
      FROM added
     WHERE state <> 'superseded'
    HAVING count(*) > 0;
    RETURN NULL;
END $$
""",
    """
CREATE TRIGGER append_amount_delta AFTER INSERT ON usage_reports
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION append_amount_delta()
""",
    # A superseded report counts no more: the one that replaces it has its amount.
    """
CREATE FUNCTION take_superseded_back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO amount_deltas (size, account_id, meter, hour, value)
    VALUES (1, ARRAY[NEW.user_id], ARRAY[NEW.meter],
            ARRAY[date_bin('1 hour', NEW.occurred_at, timestamptz 'epoch')], ARRAY[-NEW.value]);
    RETURN NULL;
END $$
""",
    """
CREATE TRIGGER take_superseded_back AFTER UPDATE OF state ON usage_reports
    FOR EACH ROW WHEN (NEW.state = 'superseded' AND OLD.state <> 'superseded')
    EXECUTE FUNCTION take_superseded_back()
""",
    """
CREATE VIEW hourly_usage AS
SELECT user_id, hour, server_id, tool_name, sum(runs)::bigint AS runs,
       sum(billable_runs)::bigint AS billable_runs, sum(tokens)::bigint AS tokens
  FROM (SELECT user_id, hour, server_id, tool_name, runs, billable_runs, tokens
          FROM folded_usage
         UNION ALL
        SELECT n.user_id, n.hour, n.server_id, n.tool_name, 1, n.billable::int, n.tokens
          FROM usage_deltas d
         CROSS JOIN LATERAL unnest(
               d.user_id, d.hour, d.server_id, d.tool_name, d.billable, d.tokens)
               AS n(user_id, hour, server_id, tool_name, billable, tokens)) u
 GROUP BY user_id, hour, server_id, tool_name
""",
    """
CREATE VIEW hourly_amounts AS
SELECT account_id, meter, hour, sum(value)::bigint AS value
  FROM (SELECT account_id, meter, hour, value
          FROM folded_amounts
         UNION ALL
        SELECT n.account_id, n.meter, n.hour, n.value
          FROM amount_deltas d
         CROSS JOIN LATERAL unnest(d.account_id, d.meter, d.hour, d.value)
               AS n(account_id, meter, hour, value)) a
 GROUP BY account_id, meter, hour
""",
    # Whole hours from the totals, by bounds that reach the index through the view. The parts of
    # hours at both ends from the reports themselves: if there is no whole hour between, the second
    # part begins where the first ends. In PL/pgSQL, whose plans are kept with the session.
    """
CREATE FUNCTION amount_between(
    account uuid, of_meter text, since timestamptz, until timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
WITH hours AS (
    SELECT date_bin('1 hour', since + interval '3599.999999 s', timestamptz 'epoch') AS first,
           date_bin('1 hour', until, timestamptz 'epoch') AS last
), edges AS (
    SELECT since AS begins, least(first, until) AS ends FROM hours
     UNION ALL
    SELECT greatest(last, least(first, until)), until FROM hours
)
SELECT (coalesce((SELECT sum(a.value) FROM hourly_amounts a
                   WHERE a.account_id = account AND a.meter = of_meter
                     AND a.hour >= date_bin('1 hour', since + interval '3599.999999 s',
                                            timestamptz 'epoch')
                     AND a.hour < date_bin('1 hour', until, timestamptz 'epoch')), 0)
      + coalesce((SELECT sum(r.value) FROM edges e
                   CROSS JOIN LATERAL (
                         SELECT r.value FROM usage_reports r
                          WHERE e.begins < e.ends
                            AND date_bin('1 hour', r.occurred_at, timestamptz 'epoch')
                                = date_bin('1 hour', e.begins, timestamptz 'epoch')
                            AND r.user_id = account AND r.meter = of_meter
                            AND r.occurred_at >= e.begins AND r.occurred_at < e.ends
                            AND r.state <> 'superseded') r), 0))::bigint);
END $$
""",
    "GRANT SELECT ON hourly_usage, hourly_amounts TO usage_ingest",
    "GRANT SELECT, INSERT, DELETE ON usage_deltas, amount_deltas TO usage_ingest",
    "GRANT SELECT, INSERT, UPDATE ON folded_usage, folded_amounts TO usage_ingest",
    "GRANT SELECT, UPDATE ON totals_progress TO usage_ingest",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON touched_amounts TO usage_ingest",
    "GRANT SELECT, INSERT ON thresholds_sent TO usage_ingest",
)

DOWN = (
    "DROP FUNCTION amount_between",
    "DROP VIEW hourly_usage",
    "DROP VIEW hourly_amounts",
    "DROP TRIGGER append_usage_delta ON usage_events",
    "DROP TRIGGER append_amount_delta ON usage_reports",
    "DROP TRIGGER take_superseded_back ON usage_reports",
    "DROP FUNCTION append_usage_delta",
    "DROP FUNCTION append_amount_delta",
    "DROP FUNCTION take_superseded_back",
    "DROP TABLE thresholds_sent",
    "DROP TABLE touched_amounts",
    "DROP TABLE totals_progress",
    "DROP TABLE folded_amounts",
    "DROP TABLE folded_usage",
    "DROP TABLE amount_deltas",
    "DROP TABLE usage_deltas",
    "DROP INDEX usage_reports_hour",
)


def upgrade() -> None:
    """Create tables, triggers and views; no row of a table that is there is written."""
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    """Drop them; the totals can be made again from the ledger."""
    for statement in DOWN:
        op.execute(statement)
