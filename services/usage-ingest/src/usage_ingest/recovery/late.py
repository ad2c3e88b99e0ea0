"""Recovery of late readings: they go back to the late reports that summed them up.

No events are claimed for a late report. Where its readings were lost, too, their events may have
come again with the cost among their own readings: that cost is the late report's, and the event
another claim's.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from usage_ingest.columns import Column, arrays, rows
from usage_ingest.payers import assigned_at
from usage_ingest.recovery.events import Beside, Candidate, Claim, Group, assign_events
from usage_ingest.recovery.reports import ReportRow
from usage_ingest.recovery.statements import STORED, report_row

_GROUPS: Final = (
    Column("place", "bigint", "place"),
    Column("account_id", "uuid", "group.account_id"),
    Column("begins", "timestamptz", "group.begins"),
    Column("ends", "timestamptz", "group.ends"),
    Column("dimensions", "text", "group.dimensions"),
)

REPORTS: Final = text(f"""
SELECT n.place, {", ".join(f"r.{column.name}" for column in STORED)}
  FROM {rows(_GROUPS)}
  JOIN usage_reports r ON r.user_id = n.account_id AND r.late AND r.state <> 'superseded'
                      AND r.occurred_at >= n.begins AND r.occurred_at < n.ends
                      AND r.dimensions = CAST(n.dimensions AS jsonb)
                      AND r.meter <> ALL(CAST(:apart AS text[]))
 ORDER BY r.claim_id
""")  # noqa: S608 - made of names in this program

CLAIMED: Final = text("""
SELECT claim_id, key, count(*) AS events, sum(value)::bigint AS value
  FROM late_readings WHERE claim_id = ANY(CAST(:claims AS uuid[]))
 GROUP BY 1, 2
""")

DUE: Final = text(f"""
SELECT n.place, l.event_id, l.occurred_at, l.key, l.value
  FROM {rows(_GROUPS)}
  JOIN late_readings l ON l.billing_state = 'due'
                      AND l.occurred_at >= n.begins AND l.occurred_at < n.ends
  JOIN usage_events e USING (event_id)
  {assigned_at("e")}
 WHERE coalesce(assigned.account_id, e.user_id) = n.account_id
   AND jsonb_build_object('server_id', e.server_id, 'tool_name', e.tool_name)
       @> CAST(n.dimensions AS jsonb)
""")  # noqa: S608 - likewise

TAKE_BACK: Final = text("""
UPDATE late_readings l SET billing_state = 'claimed', claim_id = n.claim_id
  FROM unnest(CAST(:events AS uuid[]), CAST(:claims AS uuid[])) AS n(event_id, claim_id)
 WHERE l.event_id = n.event_id AND l.billing_state = 'due'
""")

KEEP: Final = text("""
INSERT INTO late_readings (event_id, key, value, price_id, occurred_at, billing_state, claim_id)
SELECT n.event_id, n.key, (e.readings ->> n.key)::bigint, d.price_id, e.occurred_at, 'claimed',
       n.claim_id
  FROM unnest(CAST(:events AS uuid[]), CAST(:keys AS text[]), CAST(:claims AS uuid[]))
       AS n(event_id, key, claim_id)
  JOIN usage_events e USING (event_id)
  JOIN usage_details d USING (event_id)
ON CONFLICT (event_id, key) DO NOTHING
""")


@dataclass(frozen=True, slots=True)
class _Placed:
    place: int
    group: Group


async def late_reports(
    connection: AsyncConnection, groups: Sequence[Group], apart: Collection[str]
) -> list[tuple[Group, ReportRow]]:
    """Return the late reports of some groups, but for those of unique tools on ``apart``."""
    values = {**_placed(groups), "apart": list(apart)}
    found = await connection.execute(REPORTS, values)
    return [(groups[row.place], report_row(row)) for row in found]


async def take_back(connection: AsyncConnection, claims: Mapping[Group, Sequence[Claim]]) -> None:
    """Give late claims the late readings that they lack, as far as these are there."""
    lacking = [group for group, of in claims.items() if any(each.missing for each in of)]
    if not lacking:
        return
    due: dict[Group, list[Candidate]] = {group: [] for group in lacking}
    for row in await connection.execute(DUE, _placed(lacking)):
        reading = Candidate(row.event_id, row.occurred_at, {row.key: row.value})
        due[lacking[row.place]].append(reading)
    taken: dict[UUID, UUID] = {}
    for group, readings in due.items():
        free = [each for each in readings if each.event_id not in taken]
        taken |= assign_events(claims[group], free)
    values = {"events": list(taken), "claims": list(taken.values())}
    await connection.execute(TAKE_BACK, values)


async def keep_beside(connection: AsyncConnection, beside: Beside, claims: Iterable[Claim]) -> None:
    """Store the readings that belong to late reports, though their events have them again."""
    lacking = list(claims)
    values: dict[str, list[object]] = {"events": [], "keys": [], "claims": []}
    for candidate, key, meter in beside.taken:
        claim = next(each for each in lacking if meter in each.lacking)
        claim.events[key] += 1
        claim.sums[key] += candidate.readings[key]
        values["events"].append(candidate.event_id)
        values["keys"].append(key)
        values["claims"].append(claim.first.claim_id)
    if beside.taken:
        await connection.execute(KEEP, values)


def _placed(groups: Sequence[Group]) -> dict[str, list[Any]]:
    return arrays(_GROUPS, [_Placed(place, group) for place, group in enumerate(groups)])
