"""Recovery of what stands beside the runs: late readings, and the first uses of tools.

No events are claimed for a late report. It takes back the late readings that it summed up, so that
they are not reported again. Where these were lost, too, their events may have come again with the
cost among their own readings: that cost is the late report's, and the event another claim's.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from usage_ingest.columns import Column, arrays, rows
from usage_ingest.payers import assigned_at
from usage_ingest.recovery.plan import Beside, Claim, Group
from usage_ingest.storage.first_uses import take_first_uses

_GROUPS: Final = (
    Column("place", "bigint", "place"),
    Column("account_id", "uuid", "group.account_id"),
    Column("begins", "timestamptz", "group.begins"),
    Column("ends", "timestamptz", "group.ends"),
    Column("dimensions", "text", "group.dimensions"),
)

LACKING: Final = text(f"""
SELECT n.place, r.claim_id, r.meter, r.stripe_customer_id,
       r.event_count - (SELECT count(*) FROM late_readings l WHERE l.claim_id = r.claim_id)
           AS lacking
  FROM {rows(_GROUPS)}
  JOIN usage_reports r ON r.user_id = n.account_id AND r.late AND r.state <> 'superseded'
                      AND r.occurred_at >= n.begins AND r.occurred_at < n.ends
                      AND r.dimensions = CAST(n.dimensions AS jsonb)
                      AND r.meter <> ALL(CAST(:apart AS text[]))
 ORDER BY r.occurred_at DESC, r.claim_id
""")  # noqa: S608 - made of names in this program

TAKE_BACK: Final = text(f"""
UPDATE late_readings SET billing_state = 'claimed', claim_id = :claim_id
 WHERE (event_id, key) IN (
       SELECT l.event_id, l.key
         FROM late_readings l JOIN usage_events e USING (event_id)
         {assigned_at("e")}
        WHERE l.billing_state = 'due' AND l.occurred_at >= :begins AND l.occurred_at < :ends
          AND coalesce(assigned.account_id, e.user_id) = :account_id
          AND jsonb_build_object('server_id', e.server_id, 'tool_name', e.tool_name)
              @> CAST(:dimensions AS jsonb)
        ORDER BY l.occurred_at, l.event_id LIMIT :lacking)
""")  # noqa: S608 - likewise

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


@dataclass(slots=True)
class LateReport:
    """A late report, and how many of the readings that it summed up are not known yet."""

    claim_id: UUID
    meter: str
    stripe_customer_id: str
    lacking: int


@dataclass(frozen=True, slots=True)
class _Placed:
    place: int
    group: Group


async def take_back(
    connection: AsyncConnection, groups: Sequence[Group], apart: Collection[str]
) -> dict[Group, list[LateReport]]:
    """Claim the late readings of the late reports of some groups; return these, by group.

    Reports on the meters ``apart`` are those of unique tools.
    """
    found: dict[Group, list[LateReport]] = {group: [] for group in groups}
    placed = [_Placed(place, group) for place, group in enumerate(groups)]
    values = {**arrays(_GROUPS, placed), "apart": list(apart)}
    for row in (await connection.execute(LACKING, values)).all():
        group = groups[row.place]
        report = LateReport(row.claim_id, row.meter, row.stripe_customer_id, row.lacking)
        if report.lacking > 0:
            where = {name: getattr(group, name) for name in Group.__slots__}
            asked = {**where, "claim_id": report.claim_id, "lacking": report.lacking}
            report.lacking -= (await connection.execute(TAKE_BACK, asked)).rowcount
        found[group].append(report)
    return found


def room_beside(reports: Iterable[LateReport]) -> Beside:
    """Return how many readings of each meter the late reports of a group still lack."""
    room: Counter[str] = Counter()
    for report in reports:
        room[report.meter] += report.lacking
    return Beside(room)


async def keep_beside(
    connection: AsyncConnection, beside: Beside, reports: Iterable[LateReport]
) -> None:
    """Store the readings that belong to late reports, though their events have them again."""
    open_reports = [report for report in reports if report.lacking > 0]
    claims: list[UUID] = []
    for _, _, meter in beside.taken:
        report = next(each for each in open_reports if each.meter == meter and each.lacking > 0)
        report.lacking -= 1
        claims.append(report.claim_id)
    if claims:
        values = {
            "events": [event_id for event_id, _, _ in beside.taken],
            "keys": [key for _, key, _ in beside.taken],
            "claims": claims,
        }
        await connection.execute(KEEP, values)


async def restore_first_uses(
    connection: AsyncConnection,
    claims: Iterable[Claim],
    taken: Collection[UUID],
    counted: Collection[UUID],
    unique_meters: Mapping[str | None, str | None],
) -> None:
    """Store the first uses of the claims that got events, so that none is charged again.

    Each tool of a claimed event was counted by its claim or by one before it, if the account's plan
    counts tools: as it is known now, or since the claim is in ``counted``, which have a report of
    unique tools. A plan that the account has no more is perhaps not known again.
    """
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
