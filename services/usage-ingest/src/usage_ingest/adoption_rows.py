"""The rows that a restored ledger is compared with its reporter's journal by, and those changed."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row as ResultRow
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_contracts import CallRecord
from usage_ingest.adoption import Account, Mark, Plan, Row
from usage_ingest.matching import Candidate, Claim, Group
from usage_ingest.reports import stored_report

REPORTS: Final = text("""
SELECT report_id, claim_id, identifier, user_id, stripe_customer_id, generation, meter, value,
       dimensions, occurred_at, event_count, state, forwarded_at, answered_at, reason, ever_unknown
  FROM usage_reports
 WHERE report_id = ANY(CAST(:ids AS uuid[]))
    OR (claim_id = ANY(CAST(:claims AS uuid[])) AND state <> 'superseded')
""")

ACCOUNTS: Final = text("""
SELECT stripe_customer_id, user_id, generation FROM billing_accounts
 WHERE stripe_customer_id = ANY(CAST(:customers AS text[]))
""")

HELD: Final = text("""
SELECT e.claim_id, r.key AS meter, count(*) AS events, sum(r.value::bigint)::bigint AS value
  FROM usage_events e
 CROSS JOIN LATERAL jsonb_each_text(e.readings) r
 WHERE e.claim_id = ANY(CAST(:claims AS uuid[]))
 GROUP BY 1, 2
""")

# Numbered apart for each set of meters that events read: of every kind there may be just enough.
CANDIDATES: Final = text("""
SELECT place, event_id, occurred_at, readings
  FROM (SELECT g.place, g.most, e.event_id, e.occurred_at, e.readings,
               row_number() OVER (
                   PARTITION BY g.place, (SELECT array_agg(k ORDER BY k)
                                            FROM jsonb_object_keys(e.readings) k)
                   ORDER BY e.occurred_at < g.earliest, e.occurred_at, e.event_id) AS number
          FROM unnest(CAST(:users AS uuid[]), CAST(:begins AS timestamptz[]),
                      CAST(:ends AS timestamptz[]), CAST(:dimensions AS text[]),
                      CAST(:earliest AS timestamptz[]), CAST(:most AS bigint[]))
               WITH ORDINALITY
               AS g(user_id, begins, ends, dimensions, earliest, most, place)
         CROSS JOIN LATERAL (
               SELECT e.event_id, e.occurred_at, e.readings
                 FROM usage_events e
                WHERE e.user_id = g.user_id
                  AND e.occurred_at >= g.begins AND e.occurred_at < g.ends
                  AND e.billing_state IN ('waiting', 'due', 'expired')
                  AND jsonb_build_object('server_id', e.server_id, 'tool_name', e.tool_name)
                      @> CAST(g.dimensions AS jsonb)
               OFFSET 0) e) numbered
 WHERE number <= most
""")

MARK: Final = text("""
UPDATE usage_reports r
   SET state = n.state, reason = n.reason, ever_unknown = r.ever_unknown OR n.ever_unknown,
       forwarded_at = coalesce(r.forwarded_at, n.forwarded_at), answered_at = n.answered_at
  FROM unnest(CAST(:ids AS uuid[]), CAST(:state AS text[]), CAST(:forwarded_at AS timestamptz[]),
              CAST(:answered_at AS timestamptz[]), CAST(:reason AS text[]),
              CAST(:ever_unknown AS boolean[]))
       AS n(report_id, state, forwarded_at, answered_at, reason, ever_unknown)
 WHERE r.report_id = n.report_id AND r.state NOT IN ('reported', 'superseded')
""")

PUT_BACK: Final = text("""
INSERT INTO usage_reports (
    report_id, claim_id, identifier, user_id, stripe_customer_id, generation, meter, value,
    dimensions, occurred_at, event_count, state, forwarded_at, answered_at, reason, ever_unknown)
SELECT n.report_id, n.claim_id, n.identifier, n.user_id, n.stripe_customer_id, n.generation,
       n.meter, n.value, n.dimensions::jsonb, n.occurred_at, n.event_count, n.state,
       n.forwarded_at, n.answered_at, n.reason, n.ever_unknown
  FROM unnest(
         CAST(:report_id AS uuid[]), CAST(:claim_id AS uuid[]), CAST(:identifier AS text[]),
         CAST(:user_id AS uuid[]), CAST(:stripe_customer_id AS text[]), CAST(:generation AS int[]),
         CAST(:meter AS text[]), CAST(:value AS bigint[]), CAST(:dimensions AS text[]),
         CAST(:occurred_at AS timestamptz[]), CAST(:event_count AS bigint[]),
         CAST(:state AS text[]), CAST(:forwarded_at AS timestamptz[]),
         CAST(:answered_at AS timestamptz[]), CAST(:reason AS text[]),
         CAST(:ever_unknown AS boolean[]))
       AS n(report_id, claim_id, identifier, user_id, stripe_customer_id, generation, meter, value,
            dimensions, occurred_at, event_count, state, forwarded_at, answered_at, reason,
            ever_unknown)
""")

CLAIM: Final = text("""
UPDATE usage_events e SET billing_state = 'claimed', claim_id = n.claim_id
  FROM unnest(CAST(:events AS uuid[]), CAST(:claims AS uuid[])) AS n(event_id, claim_id)
 WHERE e.event_id = n.event_id AND e.billing_state IN ('waiting', 'due', 'expired')
""")


async def ledger(connection: AsyncConnection, records: Sequence[CallRecord]) -> list[Row]:
    """Return the rows of these reports, and those that stand of the same claims."""
    values = {
        "ids": [record.report.report_id for record in records],
        "claims": [record.claim_id for record in records],
    }
    return [_row(found) for found in await connection.execute(REPORTS, values)]


def _row(found: ResultRow[Any]) -> Row:
    mark = Mark(
        found.state, found.forwarded_at, found.answered_at, found.reason, found.ever_unknown
    )
    account = Account(found.user_id, found.generation)
    return Row(stored_report(found._asdict()), found.claim_id, account, mark)


async def accounts(connection: AsyncConnection, customers: Iterable[str]) -> dict[str, Account]:
    """Return those of the customers that are known."""
    values = {"customers": sorted(customers)}
    found = await connection.execute(ACCOUNTS, values)
    return {row.stripe_customer_id: Account(row.user_id, row.generation) for row in found}


async def claims(connection: AsyncConnection, made: Plan) -> list[Claim]:
    """Return the claims as they are to stand, with what their events read."""
    rows: dict[UUID, dict[str, Row]] = {}
    for (claim_id, meter), row in made.standing.items():
        rows.setdefault(claim_id, {})[meter] = row
    found = {claim_id: Claim(of_claim) for claim_id, of_claim in rows.items()}
    for held in await connection.execute(HELD, {"claims": list(found)}):
        found[held.claim_id].events[held.meter] = held.events
        found[held.claim_id].values[held.meter] = held.value
    return list(found.values())


async def candidates(
    connection: AsyncConnection, groups: Mapping[Group, Sequence[Claim]]
) -> dict[Group, list[Candidate]]:
    """Return the events that the claims of each group may take: as many as they may need."""
    order = list(groups)
    found: dict[Group, list[Candidate]] = {group: [] for group in order}
    values = {
        "users": [group.user_id for group in order],
        "begins": [group.begins for group in order],
        "ends": [group.ends for group in order],
        "dimensions": [group.dimensions for group in order],
        "earliest": [min(claim.occurred_at for claim in groups[group]) for group in order],
        "most": [sum(claim.missing for claim in groups[group]) for group in order],
    }
    for row in await connection.execute(CANDIDATES, values):
        candidate = Candidate(row.event_id, row.occurred_at, row.readings)
        found[order[row.place - 1]].append(candidate)
    return found


async def write(connection: AsyncConnection, made: Plan) -> None:
    """Change the reports as planned."""
    if made.marks:
        await connection.execute(MARK, {"ids": list(made.marks), **_columns(made.marks.values())})
    if made.rows:
        rows = list(made.rows.values())
        await connection.execute(PUT_BACK, _facts(rows) | _columns(row.mark for row in rows))


def _facts(rows: Sequence[Row]) -> dict[str, list[Any]]:
    names = (
        *("report_id", "claim_id", "identifier", "stripe_customer_id", "meter", "value"),
        *("occurred_at", "event_count"),
    )
    return {name: [getattr(row.report, name) for row in rows] for name in names} | {
        "dimensions": [json.dumps(row.report.dimensions or {}) for row in rows],
        "user_id": [row.account.user_id for row in rows],
        "generation": [row.account.generation for row in rows],
    }


def _columns(marks: Iterable[Mark]) -> dict[str, list[Any]]:
    marks = list(marks)
    return {field.name: [getattr(mark, field.name) for mark in marks] for field in fields(Mark)}


async def claim(connection: AsyncConnection, taken: Mapping[UUID, UUID]) -> int:
    """Give events that no claim has to their claims; return how many that were."""
    values = {"events": list(taken), "claims": list(taken.values())}
    return (await connection.execute(CLAIM, values)).rowcount
