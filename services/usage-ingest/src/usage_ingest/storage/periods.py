"""Where accepted reports ended up, `report_placements`, by the accounts' billing periods."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_contracts import SubscriptionsRead
from nexus_database import Database
from usage_ingest.columns import Column, arrays, names, rows, selected
from usage_ingest.periods import Placement, place

MOST_PLACED: Final = 5000
"""Reports of one round."""

COMMITTED_AFTER: Final = timedelta(minutes=1)
"""An answer is older than its commit: what is older than this is committed, or never will be."""

READ: Final = text("""
INSERT INTO subscriptions_read (began_at) VALUES (:began_at)
ON CONFLICT (single) DO UPDATE SET began_at = excluded.began_at
 WHERE subscriptions_read.began_at < excluded.began_at
""")

# Of several processes one places at a time.
PLACE: Final = text("SELECT answered_at, report_id FROM placements_place FOR UPDATE")
MOVE: Final = text("""
UPDATE placements_place SET answered_at = :answered_at, report_id = :report_id
""")

# Of a subscription that is older than the first period that is known, the time before is taken for
# one period.
_PERIOD: Final = """
  LEFT JOIN LATERAL (
       SELECT max(p.period_end) AS ends_at
         FROM account_subscriptions s
         CROSS JOIN LATERAL (
              SELECT period_start, period_end, meters FROM subscription_periods
               WHERE subscription_id = s.subscription_id
               UNION ALL
              (SELECT (SELECT min(since) FROM subscription_plans
                        WHERE subscription_id = s.subscription_id), period_start, meters
                 FROM subscription_periods WHERE subscription_id = s.subscription_id
                ORDER BY period_start LIMIT 1)) p
        WHERE s.account_id = r.account_id AND r.meter = ANY(p.meters)
          AND p.period_start <= r.occurred_at AND p.period_end > r.occurred_at) period ON true
"""
_KNOWN: Final = """
       EXISTS (SELECT FROM account_subscriptions s WHERE s.account_id = r.account_id)
       OR EXISTS (SELECT FROM subscriptions_read s JOIN billing_accounts a
                      ON a.user_id = r.account_id AND a.updated_at <= s.began_at) AS known
"""

ANSWERED: Final = text(f"""
WITH r AS MATERIALIZED (
    SELECT report_id, user_id AS account_id, meter, value, occurred_at, answered_at
      FROM usage_reports
     WHERE state = 'reported' AND answered_at >= :answered_at AND answered_at < :until
       AND (answered_at, report_id) > (:answered_at, :report_id)
     ORDER BY answered_at, report_id LIMIT :most
)
SELECT r.*, period.ends_at, {_KNOWN}
  FROM r {_PERIOD}
 ORDER BY r.answered_at, r.report_id
""")  # noqa: S608 - of this module's constants

OPEN: Final = text(f"""
SELECT r.*, period.ends_at, {_KNOWN}
  FROM (SELECT * FROM report_placements
         WHERE placement IN ('not_subscribed', 'unknown')
           AND (CAST(:account_id AS uuid) IS NULL OR account_id = :account_id)
         LIMIT :most) r
  {_PERIOD}
""")  # noqa: S608 - of this module's constants

PLACED: Final = (
    Column("report_id", "uuid", "report_id"),
    Column("account_id", "uuid", "account_id"),
    Column("meter", "text", "meter"),
    Column("value", "bigint", "value"),
    Column("occurred_at", "timestamptz", "occurred_at"),
    Column("answered_at", "timestamptz", "answered_at"),
    Column("placement", "text", "placement"),
)
STORE: Final = text(f"""
INSERT INTO report_placements ({names(PLACED)}) SELECT {selected(PLACED)} FROM {rows(PLACED)}
ON CONFLICT (report_id) DO UPDATE SET placement = excluded.placement
""")  # noqa: S608 - made of names in this program
FORGET: Final = text(
    "DELETE FROM report_placements WHERE report_id = ANY(CAST(:report_id AS uuid[]))"
)

SUMS: Final = text("""
SELECT placement, count(*) AS number, coalesce(sum(value), 0)::bigint AS value
  FROM (SELECT placement, value FROM report_placements
         WHERE answered_at >= :since ORDER BY answered_at DESC LIMIT :most) p
 GROUP BY placement ORDER BY placement
""")

OF_REPORT: Final = text(f"""
SELECT r.answered_at, period.ends_at, {_KNOWN}
  FROM (SELECT user_id AS account_id, meter, occurred_at, answered_at FROM usage_reports
         WHERE report_id = :report_id) r
  {_PERIOD}
""")  # noqa: S608 - of this module's constants


@dataclass(frozen=True, slots=True)
class Placed:
    """A report and where it ended up."""

    report_id: UUID
    account_id: UUID
    meter: str
    value: int
    occurred_at: datetime
    answered_at: datetime
    placement: str


@dataclass(frozen=True, slots=True)
class PlacementSum:
    """How many reports ended up somewhere, and their sum."""

    placement: Placement
    number: int
    value: int


class Periods:
    """Places accepted reports by their accounts' billing periods; ``grace`` is Stripe's setting."""

    def __init__(self, database: Database, *, grace: timedelta) -> None:
        self._database = database
        self._grace = grace

    async def keep_read(self, read: SubscriptionsRead) -> None:
        """Store that every subscription was read.

        Raises:
            DatabaseUnavailableError: nothing was stored.
        """
        await self._database.run(lambda c: c.execute(READ, {"began_at": read.began_at}))

    async def place(self, now: datetime) -> tuple[Mapping[Placement, int], bool]:
        """Place one batch of the reports that Stripe accepted; return how many are where.

        Also returns whether there are more.

        Raises:
            RowsBusyError: another process places reports.
            DatabaseUnavailableError: none was placed.
        """

        async def work(connection: AsyncConnection) -> tuple[Mapping[Placement, int], bool]:
            last = (await connection.execute(PLACE)).one()._asdict()
            values = {**last, "until": now - COMMITTED_AFTER, "most": MOST_PLACED}
            found = (await connection.execute(ANSWERED, values)).all()
            placed = await self._store(connection, found)
            if found:
                reached = {
                    "answered_at": found[-1].answered_at,
                    "report_id": found[-1].report_id,
                }
                await connection.execute(MOVE, reached)
            return Counter(Placement(each.placement) for each in placed), len(found) == MOST_PLACED

        return await self._database.run(work)

    async def place_again(self, account_id: UUID | None = None) -> None:
        """Place again what was on no invoice, or unknown: of an account, or of all.

        Raises:
            DatabaseUnavailableError: nothing was changed.
        """
        values = {"account_id": account_id, "most": MOST_PLACED}

        async def work(connection: AsyncConnection) -> None:
            await self._store(connection, (await connection.execute(OPEN, values)).all())

        await self._database.run(work)

    async def sums(self, since: datetime) -> Sequence[PlacementSum]:
        """Return what did not come in its period, of the reports accepted ``since``.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        values = {"since": since, "most": MOST_PLACED}
        found = await self._database.run(lambda c: c.execute(SUMS, values))
        return [PlacementSum(Placement(row.placement), row.number, row.value) for row in found]

    async def _store(
        self, connection: AsyncConnection, found: Sequence[Row[Any]]
    ) -> Sequence[Placed]:
        placed = [
            Placed(
                row.report_id,
                row.account_id,
                row.meter,
                row.value,
                row.occurred_at,
                row.answered_at,
                place(row.answered_at, row.ends_at, self._grace, known=row.known).value,
            )
            for row in found
        ]
        elsewhere = [each for each in placed if each.placement != Placement.IN_PERIOD]
        if elsewhere:
            await connection.execute(STORE, arrays(PLACED, elsewhere))
        in_period = [each.report_id for each in placed if each.placement == Placement.IN_PERIOD]
        if in_period:
            await connection.execute(FORGET, {"report_id": in_period})
        return placed


async def placement_of(
    connection: AsyncConnection, report_id: UUID, now: datetime, grace: timedelta
) -> Placement:
    """Return where a report of the ledger ended up, or would if it was accepted ``now``."""
    row = (await connection.execute(OF_REPORT, {"report_id": report_id})).one()
    return place(row.answered_at or now, row.ends_at, grace, known=row.known)
