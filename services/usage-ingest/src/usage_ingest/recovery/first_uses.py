"""Recovery of unique tools: each tool that a report counted has its first use back.

A report says how many tools its claim counted. It names one only if it has both dimensions.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from usage_ingest.charging import UniqueMeters
from usage_ingest.columns import Column, arrays, rows
from usage_ingest.recovery.events import Claim
from usage_ingest.recovery.reports import ReportRow
from usage_ingest.storage.first_uses import take_first_uses

_REPORTS: Final = (
    Column("account_id", "uuid", "account.account_id"),
    Column("claim_id", "uuid", "claim_id"),
    Column("occurred_at", "timestamptz", "report.occurred_at"),
    Column("dimensions", "jsonb", "dimensions_json"),
)

NAMED: Final = text(f"""
INSERT INTO first_uses (account_id, server_id, tool_name, period_start, period_end, claim_id)
SELECT n.account_id, n.dimensions::jsonb ->> 'server_id', n.dimensions::jsonb ->> 'tool_name',
       p.period_start, p.period_end, n.claim_id
  FROM {rows(_REPORTS)}
 CROSS JOIN LATERAL account_period(n.account_id, n.occurred_at) p
 WHERE n.dimensions::jsonb ?& ARRAY['server_id', 'tool_name']
   AND NOT EXISTS (
       SELECT FROM first_uses f
        WHERE f.account_id = n.account_id AND f.server_id = n.dimensions::jsonb ->> 'server_id'
          AND f.tool_name = n.dimensions::jsonb ->> 'tool_name'
          AND f.period_start < p.period_end AND f.period_end > p.period_start)
ON CONFLICT DO NOTHING
""")  # noqa: S608 - made of names in this program

FOUND: Final = text(f"""
SELECT claim_id, count(*) AS tools
  FROM {rows(_REPORTS)} JOIN first_uses f USING (account_id, claim_id)
 GROUP BY 1
""")  # noqa: S608 - likewise


async def restore_first_uses(
    connection: AsyncConnection,
    claims: Iterable[Claim],
    taken: Collection[UUID],
    reports: Sequence[ReportRow],
    unique_meters: UniqueMeters,
) -> Counter[str]:
    """Store the first uses of the claims that got events, so that none is charged again.

    Each tool of a claimed event was counted by its claim or by one before it, if the account's plan
    counts tools: as it is known now, or since the claim has one of ``reports``, which are those of
    unique tools. A plan that the account has no more is perhaps not known again.

    Return, by customer, how many tools were charged and are not known again.
    """
    counted = {row.claim_id for row in reports}
    restored = [
        {
            "claim_id": str(claim.first.claim_id),
            "account_id": str(claim.first.account.account_id),
        }
        for claim in claims
        if claim.first.claim_id in taken
        and (
            claim.first.claim_id in counted
            or unique_meters.get(claim.plan, unique_meters.get(None)) is not None
        )
    ]
    if restored:
        await take_first_uses(connection, json.dumps(restored))
    return await _unknown(connection, reports) if reports else Counter()


async def _unknown(connection: AsyncConnection, reports: Sequence[ReportRow]) -> Counter[str]:
    """Store the first uses that reports name, and return how many are unknown by customer."""
    values = arrays(_REPORTS, reports)
    await connection.execute(NAMED, values)
    found: Mapping[UUID, int] = {
        row.claim_id: row.tools for row in await connection.execute(FOUND, values)
    }
    unknown: Counter[str] = Counter()
    for row in reports:
        customer = row.report.stripe_customer_id
        unknown[customer] += max(0, row.report.event_count - found.get(row.claim_id, 0))
    return +unknown
