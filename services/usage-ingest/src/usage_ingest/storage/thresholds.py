"""What was used of limited meters by accounts that a fold has touched, and what was announced."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_contracts import UsageThresholdReached
from nexus_database import Database
from usage_ingest.columns import Column, arrays, names, rows, selected
from usage_ingest.thresholds import Share, Usage

LEASE: Final = timedelta(seconds=60)
"""Longer than any batch of publishes takes. A lease that runs out repeats announcements, which
have the same ids."""

TAKE: Final = text("""
UPDATE touched_amounts t SET leased_until = :until
  FROM (SELECT account_id, meter FROM touched_amounts
         WHERE leased_until IS NULL OR leased_until < :now
         LIMIT :most FOR UPDATE SKIP LOCKED) f
 WHERE t.account_id = f.account_id AND t.meter = f.meter
RETURNING t.account_id, t.meter, t.hour, t.touched_at
""")

TOUCHED: Final = (
    Column("account_id", "uuid", "account_id"),
    Column("meter", "text", "meter"),
    Column("hour", "timestamptz", "hour"),
    Column("touched_at", "timestamptz", "touched_at"),
)

# The period that runs, and the one before it if an amount of that was touched: what is used in its
# last minutes is claimed and folded after its end. That is by the plan that held then, and only if
# both periods are of one kind: after a first subscription, or the last one, other limits hold.
USED: Final = text(f"""
SELECT n.account_id, n.meter, p.plan_type, t.period_start, t.period_end, now() AS as_of,
       amount_between(n.account_id, n.meter, t.period_start, t.period_end) AS used,
       ARRAY(SELECT jsonb_build_array(s.limit_name, s.limit_value, s.share_percent)
               FROM thresholds_sent s
              WHERE s.account_id = n.account_id AND s.meter = n.meter
                AND s.period_start = t.period_start) AS sent
  FROM {rows(TOUCHED)}
 CROSS JOIN LATERAL account_period(n.account_id, now()) c
 CROSS JOIN LATERAL (
       SELECT c.period_start, c.period_end, now() AS at
        UNION ALL
       SELECT b.period_start, b.period_end, l.at
         FROM (SELECT c.period_start - interval '1 microsecond' AS at
                WHERE n.hour < c.period_start) l
        CROSS JOIN LATERAL account_period(n.account_id, l.at) b
        WHERE b.basis = c.basis) t
  LEFT JOIN LATERAL (
       SELECT plan_type FROM account_plans
        WHERE account_id = n.account_id AND since <= t.at
        ORDER BY since DESC LIMIT 1) p ON true
""")  # noqa: S608 - made of names in this program

SENT: Final = (
    Column("account_id", "uuid", "account_id"),
    Column("meter", "text", "meter"),
    Column("period_start", "timestamptz", "period_start"),
    Column("limit_name", "text", "limit_name"),
    Column("limit_value", "bigint", "limit"),
    Column("share_percent", "smallint", "share_percent"),
    Column("used", "bigint", "used"),
)

STORE: Final = text(f"""
INSERT INTO thresholds_sent ({names(SENT)})
SELECT {selected(SENT)} FROM {rows(SENT)}
ON CONFLICT DO NOTHING
""")  # noqa: S608 - likewise

# What a fold touched again meanwhile stays, and is looked at again.
DONE: Final = text(f"""
DELETE FROM touched_amounts t
 USING {rows(TOUCHED)}
 WHERE t.account_id = n.account_id AND t.meter = n.meter AND t.touched_at = n.touched_at
""")  # noqa: S608 - likewise

RELEASE: Final = text(f"""
UPDATE touched_amounts t SET leased_until = NULL
  FROM {rows(TOUCHED)}
 WHERE t.account_id = n.account_id AND t.meter = n.meter
""")  # noqa: S608 - likewise


@dataclass(frozen=True, slots=True)
class Touched:
    """An account and a meter whose amounts changed by a time, of ``hour`` or later."""

    account_id: UUID
    meter: str
    hour: datetime
    touched_at: datetime


class Thresholds:
    """Leases touched amounts, and stores what was announced of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lease(self, now: datetime, *, most: int = 500) -> tuple[list[Touched], list[Usage]]:
        """Lease up to ``most`` touched amounts to this process, and return what was used of each.

        Of each that is in the period that runs, and perhaps in the one before it.

        Raises:
            DatabaseUnavailableError: nothing was leased.
        """

        async def work(connection: AsyncConnection) -> tuple[list[Touched], list[Usage]]:
            values = {"now": now, "until": now + LEASE, "most": most}
            taken = [Touched(*row) for row in await connection.execute(TAKE, values)]
            if not taken:
                return [], []
            return taken, [
                Usage(
                    row.account_id,
                    row.meter,
                    row.plan_type,
                    row.period_start,
                    row.period_end,
                    row.used,
                    frozenset(Share(*each) for each in row.sent),
                    row.as_of,
                )
                for row in await connection.execute(USED, arrays(TOUCHED, taken))
            ]

        return await self._database.run(work)

    async def settle(
        self, touched: Sequence[Touched], sent: Sequence[UsageThresholdReached], *, all_sent: bool
    ) -> None:
        """Store what the broker confirmed. Unless ``all_sent``, all are looked at again.

        Raises:
            DatabaseUnavailableError: nothing was stored; it is announced again with the same ids.
        """

        async def work(connection: AsyncConnection) -> None:
            if sent:
                await connection.execute(STORE, arrays(SENT, sent))
            if all_sent:
                await connection.execute(DONE, arrays(TOUCHED, touched))
            await connection.execute(RELEASE, arrays(TOUCHED, touched))

        await self._database.run(work)
