"""Unique tools: the first use of a tool by an account in a period is one unit, in the claim.

A period is the account's at the time of the run (`account_period`, migration 0006), as far as the
ledger knows it at the time of the claim. A tool is counted once in periods that overlap, so what
the ledger learns of a period later charges nothing twice.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from usage_ingest.columns import NEW_ID

ADVISORY_LOCK: Final = 7_203_514
"""Any fixed number. Claims that found new first uses take them one after the other: of two that
know different periods of an account, neither could see the other's row."""

LOCK: Final = text("SELECT pg_advisory_xact_lock(:key)")

# A first use whose period has the time of the run overlaps the run's own period, whatever that is:
# of most runs no period is looked up. ``OFFSET 0`` makes each look one in the index, whatever the
# planner expects: joined, it might read the first uses of all accounts.
_NEW: Final = """
WITH claims AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(CAST(:claims AS jsonb)) AS c(claim_id uuid, account_id uuid)
), used AS (
    SELECT DISTINCT ON (e.account_id, e.server_id, e.tool_name)
           e.account_id, e.server_id, e.tool_name, p.period_start, p.period_end, e.claim_id
      FROM (SELECT c.account_id, c.claim_id, e.event_id, e.server_id, e.tool_name, e.occurred_at
              FROM claims c
              JOIN usage_events e ON e.claim_id = c.claim_id
             WHERE NOT EXISTS (
                   SELECT FROM first_uses f
                    WHERE f.account_id = c.account_id AND f.server_id = e.server_id
                      AND f.tool_name = e.tool_name
                      AND f.period_start <= e.occurred_at AND f.period_end > e.occurred_at
                   OFFSET 0)
            OFFSET 0) e
     CROSS JOIN LATERAL account_period(e.account_id, e.occurred_at) p
     WHERE NOT EXISTS (
           SELECT FROM first_uses f
            WHERE f.account_id = e.account_id AND f.server_id = e.server_id
              AND f.tool_name = e.tool_name
              AND f.period_start < p.period_end AND f.period_end > p.period_start
           OFFSET 0)
     ORDER BY e.account_id, e.server_id, e.tool_name, e.occurred_at, e.event_id
)
"""

ANY_NEW: Final = text(_NEW + "SELECT EXISTS (SELECT FROM used)")  # noqa: S608 - likewise

TAKE: Final = text(
    _NEW
    + """
INSERT INTO first_uses (account_id, server_id, tool_name, period_start, period_end, claim_id)
SELECT account_id, server_id, tool_name, period_start, period_end, claim_id FROM used
RETURNING claim_id
"""
)

REPORT: Final = text(f"""
INSERT INTO usage_reports (
    report_id, identifier, claim_id, user_id, stripe_customer_id, generation, meter, value,
    dimensions, occurred_at, event_count, traceparent, late, state)
SELECT n.id, 'nexus:' || n.id, c.claim_id, c.account_id, c.stripe_customer_id, c.generation,
       c.meter, u.value, c.dimensions, c.occurred_at, u.value,
       CAST(:traceparent AS text), true, c.state
  FROM jsonb_to_recordset(CAST(:claims AS jsonb)) AS c(
       claim_id uuid, account_id uuid, stripe_customer_id text, generation int, meter text,
       dimensions jsonb, occurred_at timestamptz, state text)
  JOIN unnest(CAST(:ids AS uuid[]), CAST(:values AS bigint[])) AS u(claim_id, value)
    USING (claim_id)
 CROSS JOIN LATERAL (SELECT {NEW_ID} AS id WHERE c.claim_id IS NOT NULL) n
RETURNING state
""")  # noqa: S608 - of this project's constants


async def take_first_uses(connection: AsyncConnection, claims: str) -> Mapping[UUID, int]:
    """Store the first uses among the events of some claims; return their number by claim.

    Each round takes one for each account and tool: events of a backlog may be of several periods.

    Args:
        connection: Of the transaction that marked the events as claimed.
        claims: A JSON list of objects with ``claim_id`` and ``account_id``.
    """
    taken: Counter[UUID] = Counter()
    values = {"claims": claims}
    if not (await connection.execute(ANY_NEW, values)).scalar_one():
        return taken
    await connection.execute(LOCK, {"key": ADVISORY_LOCK})
    while new := (await connection.execute(TAKE, values)).scalars().all():
        taken.update(new)
    return taken


async def report_first_uses(
    connection: AsyncConnection, claims: str, traceparent: str | None
) -> Counter[str]:
    """Take the first uses of some claims and report them; return the number of reports by state.

    Args:
        connection: Of the transaction that marked the events as claimed.
        claims: The claims as JSON, with all that a report has of its claim, and the meter.
        traceparent: The claim's own trace context.
    """
    taken = await take_first_uses(connection, claims)
    if not taken:
        return Counter()
    values = {
        "claims": claims,
        "ids": list(taken),
        "values": list(taken.values()),
        "traceparent": traceparent,
    }
    return Counter((await connection.execute(REPORT, values)).scalars())
