"""The SQL of recovery: reports and their events, a batch at a time."""

from typing import Any, Final

from sqlalchemy import Row, text

from nexus_plans.parts import ROUTE_SIGN
from usage_ingest.columns import Column, names, rows, selected
from usage_ingest.payers import assigned_at
from usage_ingest.recovery.reports import CustomerAccount, ReportRow, ReportStatus
from usage_ingest.storage.reports import stored_report

ADVISORY_LOCK: Final = 7_203_512
"""Any fixed number: recoveries that run at the same time wait for each other, batch by batch."""

LOCK: Final = text("SELECT pg_advisory_xact_lock(:key)")

REPORT_ID: Final = Column("report_id", "uuid", "report.report_id")
STATUS: Final = (
    Column("state", "text", "status.state"),
    Column("forwarded_at", "timestamptz", "status.forwarded_at"),
    Column("answered_at", "timestamptz", "status.answered_at"),
    Column("reason", "text", "status.reason"),
    Column("ever_unknown", "boolean", "status.ever_unknown"),
)
UPDATED: Final = (REPORT_ID, *STATUS)
STORED: Final = (
    REPORT_ID,
    Column("claim_id", "uuid", "claim_id"),
    Column("identifier", "text", "report.identifier"),
    Column("user_id", "uuid", "account.account_id"),
    Column("stripe_customer_id", "text", "report.stripe_customer_id"),
    Column("generation", "int", "account.generation"),
    Column("meter", "text", "report.meter"),
    Column("value", "bigint", "report.value"),
    Column("dimensions", "jsonb", "dimensions_json"),
    Column("occurred_at", "timestamptz", "report.occurred_at"),
    Column("event_count", "bigint", "report.event_count"),
    Column("late", "boolean", "report.late"),
    *STATUS,
)

REPORTS: Final = text(f"""
SELECT {names(STORED)}
  FROM usage_reports
 WHERE report_id = ANY(CAST(:ids AS uuid[]))
    OR (claim_id = ANY(CAST(:claims AS uuid[])) AND state <> 'superseded')
""")  # noqa: S608 - made of names in this program

UPDATE: Final = text(f"""
UPDATE usage_reports r
   SET state = n.state, reason = n.reason, ever_unknown = r.ever_unknown OR n.ever_unknown,
       forwarded_at = coalesce(r.forwarded_at, n.forwarded_at), answered_at = n.answered_at
  FROM {rows(UPDATED)}
 WHERE r.report_id = n.report_id AND r.state NOT IN ('rejected_later', 'superseded')
   AND (r.state <> 'reported' OR n.state = 'rejected_later')
""")  # noqa: S608 - likewise

INSERT: Final = text(f"""
INSERT INTO usage_reports ({names(STORED)})
SELECT {selected(STORED)}
  FROM {rows(STORED)}
""")  # noqa: S608 - likewise

ACCOUNTS: Final = text("""
SELECT stripe_customer_id, user_id, generation FROM billing_accounts
 WHERE stripe_customer_id = ANY(CAST(:customers AS text[]))
""")

# But for what is a late report's, though its event has it again.
CLAIMED: Final = text("""
SELECT e.claim_id, r.key, count(*) AS events, sum(r.value::bigint)::bigint AS value
  FROM usage_events e
 CROSS JOIN LATERAL jsonb_each_text(e.readings) r
 WHERE e.claim_id = ANY(CAST(:claims AS uuid[]))
   AND NOT EXISTS (SELECT FROM late_readings l WHERE l.event_id = e.event_id AND l.key = r.key)
 GROUP BY 1, 2
""")

SEARCHES: Final = (
    Column("place", "bigint", "place"),
    Column("account_id", "uuid", "group.account_id"),
    Column("begins", "timestamptz", "group.begins"),
    Column("ends", "timestamptz", "group.ends"),
    Column("dimensions", "text", "group.dimensions"),
    Column("earliest", "timestamptz", "earliest"),
    Column("most", "bigint", "most"),
)

PLANS: Final = text("""
SELECT n.claim_id, planned.plan_type
  FROM unnest(CAST(:claims AS uuid[]), CAST(:accounts AS uuid[]), CAST(:times AS timestamptz[]))
       AS n(claim_id, account_id, at)
 CROSS JOIN LATERAL (
       SELECT plan_type FROM account_plans
        WHERE account_id = n.account_id AND since <= n.at ORDER BY since DESC LIMIT 1) planned
""")

# What a user's assignment was at an event's time before a later one overruled it: none that was
# known by then begins between the two. Everybody was their own account at first.
_OVERRULED: Final = """
    :overruled AND (u.user_id = n.account_id OR EXISTS (
        SELECT FROM account_assignments a
         WHERE a.user_id = e.user_id AND a.account_id = n.account_id AND a.since <= e.occurred_at
           AND NOT EXISTS (SELECT FROM account_assignments b
                            WHERE b.user_id = a.user_id AND b.revision < a.revision
                              AND b.since > a.since AND b.since <= e.occurred_at)))"""

# Counted apart for each set of keys that events have: each set alone may have to suffice. No window
# spans two minutes, and there is an index by minute and user.
CANDIDATES: Final = text(f"""
SELECT place, event_id, occurred_at, readings, overruled
  FROM (SELECT n.place, n.most, e.event_id, e.occurred_at, e.readings, e.overruled,
               row_number() OVER (
                   PARTITION BY n.place, (SELECT array_agg(k ORDER BY k)
                                            FROM jsonb_object_keys(e.readings) k)
                   ORDER BY e.overruled, e.occurred_at < n.earliest, e.occurred_at, e.event_id
               ) AS number
          FROM {rows(SEARCHES)}
         CROSS JOIN LATERAL (
               SELECT e.event_id, e.occurred_at, e.readings,
                      coalesce(assigned.account_id, e.user_id) <> n.account_id AS overruled
                 FROM (SELECT n.account_id AS user_id
                        UNION
                       SELECT a.user_id FROM account_assignments a
                        WHERE a.account_id = n.account_id) u
                CROSS JOIN LATERAL (
                      SELECT e.event_id, e.user_id, e.occurred_at, e.readings
                        FROM usage_events e
                       WHERE e.user_id = u.user_id
                         AND date_trunc('minute', e.occurred_at AT TIME ZONE 'UTC')
                             = date_trunc('minute', n.begins AT TIME ZONE 'UTC')
                         AND e.occurred_at >= n.begins AND e.occurred_at < n.ends
                         AND e.billing_state IN ('waiting', 'due', 'expired')
                         AND jsonb_build_object('server_id', e.server_id, 'tool_name', e.tool_name)
                             @> CAST(n.dimensions AS jsonb)
                      OFFSET 0) e
                {assigned_at("e")}
                WHERE coalesce(assigned.account_id, e.user_id) = n.account_id OR ({_OVERRULED})
                OFFSET 0) e) numbered
 WHERE number <= most
""")  # noqa: S608 - likewise

LOST_ROUTES: Final = text(f"""
SELECT DISTINCT key
  FROM usage_events CROSS JOIN LATERAL jsonb_object_keys(readings) AS k(key)
 WHERE billing_state IN ('waiting', 'due') AND starts_with(key, '{ROUTE_SIGN}')
   AND key <> ALL(CAST(:routes AS text[]))
 ORDER BY key
""")  # noqa: S608 - of this project's constants

CLAIM: Final = text("""
UPDATE usage_events e SET billing_state = 'claimed', claim_id = n.claim_id
  FROM unnest(CAST(:events AS uuid[]), CAST(:claims AS uuid[])) AS n(event_id, claim_id)
 WHERE e.event_id = n.event_id AND e.billing_state IN ('waiting', 'due', 'expired')
""")


def report_row(row: Row[Any]) -> ReportRow:
    """Return a report by its columns ``STORED``."""
    status = ReportStatus(
        row.state, row.forwarded_at, row.answered_at, row.reason, row.ever_unknown
    )
    account = CustomerAccount(row.user_id, row.generation)
    return ReportRow(stored_report(row._asdict()), row.claim_id, account, status)
