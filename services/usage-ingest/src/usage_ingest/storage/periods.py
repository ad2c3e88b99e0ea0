"""Where accepted reports ended up, `report_placements`, by the accounts' billing periods."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_contracts import SubscriptionChanged, SubscriptionsRead
from nexus_database import Database
from nexus_plans import Plans
from usage_ingest.columns import Column, arrays, names, rows, selected
from usage_ingest.periods import Placement, ended_early, place
from usage_ingest.plan_history import runs

MAX_PLACED: Final = 5000
"""Reports of one round."""

PLACED_AFTER: Final = timedelta(minutes=1)
"""From an answer until its report is placed: news of a period that has just begun may come after
the usage."""

FIRST_ID: Final = UUID(int=0)

LOCKED: Final = 7_203_514
LOCK: Final = text("SELECT pg_advisory_xact_lock(:key)")
"""With any fixed number. Of several processes one places at a time, and no report is placed by what
was known before a subscription changed and stored after the change had all reports placed again."""

READ: Final = text("""
INSERT INTO subscriptions_read (began_at) VALUES (:began_at)
ON CONFLICT (single) DO UPDATE SET began_at = excluded.began_at
 WHERE subscriptions_read.began_at < excluded.began_at
""")

# Of a subscription that is older than the first period that is known, the time before is taken for
# one period.
_PERIOD: Final = """
  LEFT JOIN LATERAL (
       SELECT max(p.period_end) AS ends_at, bool_and(p.ended_early) AS early
         FROM account_subscriptions s
         CROSS JOIN LATERAL (
              SELECT period_start, period_end, meters, ended_early FROM subscription_periods
               WHERE subscription_id = s.subscription_id
               UNION ALL
              (SELECT (SELECT min(since) FROM subscription_plans
                        WHERE subscription_id = s.subscription_id), period_start, meters, false
                 FROM subscription_periods WHERE subscription_id = s.subscription_id
                ORDER BY period_start LIMIT 1)) p
        WHERE s.account_id = r.account_id AND s.stripe_customer_id = r.stripe_customer_id
          AND r.meter = ANY(p.meters)
          AND p.period_start <= r.occurred_at AND p.period_end > r.occurred_at) period ON true
"""
_ACCOUNT: Final = """
       EXISTS (SELECT FROM account_subscriptions s
                WHERE s.account_id = r.account_id
                  AND s.stripe_customer_id = r.stripe_customer_id)
       OR EXISTS (SELECT FROM subscriptions_read s JOIN billing_accounts a
                      ON a.user_id = r.account_id AND a.updated_at <= s.began_at) AS known,
       (SELECT plan_type FROM account_plans p
         WHERE p.account_id = r.account_id AND p.since <= r.occurred_at
         ORDER BY p.since DESC LIMIT 1) AS plan_type
"""

# What is locked is queued again by an answer that is not committed: this statement can't read it.
TAKE: Final = text(f"""
WITH due AS MATERIALIZED (
    DELETE FROM placements_due
     WHERE report_id = ANY(ARRAY(
           SELECT report_id FROM placements_due WHERE queued_at < :until
            ORDER BY queued_at LIMIT :most FOR UPDATE SKIP LOCKED))
    RETURNING report_id, again
), r AS MATERIALIZED (
    SELECT d.again, u.report_id, u.state, u.user_id AS account_id, u.stripe_customer_id, u.meter,
           u.value, u.occurred_at, u.answered_at
      FROM due d JOIN usage_reports u USING (report_id)
)
SELECT r.*, period.ends_at, period.early, {_ACCOUNT},
       (SELECT placement FROM report_placements p WHERE p.report_id = r.report_id) AS before
  FROM r {_PERIOD}
""")  # noqa: S608 - of this module's constants


def _queue(condition: str) -> TextClause:
    """Return SQL that queues placed reports, in pages by their ids."""
    return text(f"""
WITH page AS MATERIALIZED (
    SELECT report_id FROM report_placements
     WHERE {condition} AND report_id > :after ORDER BY report_id LIMIT :most
), queued AS (
    INSERT INTO placements_due (report_id, again) SELECT report_id, true FROM page
    ON CONFLICT DO NOTHING
)
SELECT report_id, (SELECT count(*) FROM page) AS number FROM page ORDER BY report_id DESC LIMIT 1
""")  # noqa: S608 - of this module's constants


QUEUE_UNKNOWN: Final = _queue("placement = 'unknown'")
QUEUE_ACCOUNT: Final = _queue(
    "placement IN ('not_subscribed', 'not_charged', 'unknown') AND account_id = :account_id"
)

# Usage after a subscription's end may have been placed in the period that it would have had, and
# usage of a period that ended early was placed in that.
QUEUE_ENDED: Final = text("""
INSERT INTO placements_due (report_id, again)
SELECT r.report_id, true
  FROM generate_series(
       date_bin('1 hour', greatest(CAST(:ended AS timestamptz), now() - interval '36 days'),
                timestamptz 'epoch'),
       now() + interval '1 hour', interval '1 hour') AS h(hour)
  JOIN usage_reports r
    ON date_bin('1 hour', r.occurred_at, timestamptz 'epoch') = h.hour
   AND r.user_id = :account_id
 WHERE r.state = 'reported' AND r.occurred_at >= :ended
ON CONFLICT DO NOTHING
""")

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

NUMBERS: Final = text("""
SELECT placement, count(*) AS number
  FROM (SELECT placement FROM report_placements
         WHERE answered_at >= :since ORDER BY answered_at DESC LIMIT :most) p
 GROUP BY placement ORDER BY placement
""")

OF_REPORT: Final = text(f"""
SELECT r.meter, r.answered_at, period.ends_at, period.early, {_ACCOUNT}
  FROM (SELECT user_id AS account_id, stripe_customer_id, meter, occurred_at, answered_at
          FROM usage_reports WHERE report_id = :report_id) r
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


class Periods:
    """Places accepted reports by their accounts' billing periods and ``plans``.

    ``grace`` is Stripe's setting.
    """

    def __init__(self, database: Database, *, grace: timedelta, plans: Plans | None) -> None:
        self._database = database
        self._grace = grace
        self._plans = plans

    async def keep_read(self, read: SubscriptionsRead) -> None:
        """Store that every subscription was read.

        Raises:
            DatabaseUnavailableError: nothing was stored.
        """
        await self._database.run(lambda c: c.execute(READ, {"began_at": read.began_at}))

    async def place(self, now: datetime) -> tuple[Mapping[Placement, int], bool]:
        """Place one batch of the reports that Stripe accepted; return how many came where.

        Also returns whether there are more.

        Raises:
            RowsBusyError: another process places reports.
            DatabaseUnavailableError: none was placed.
        """
        values = {"until": now - PLACED_AFTER, "most": MAX_PLACED}

        async def work(connection: AsyncConnection) -> tuple[Mapping[Placement, int], bool]:
            await connection.execute(LOCK, {"key": LOCKED})
            found = (await connection.execute(TAKE, values)).all()
            return await self._store(connection, found), len(found) == MAX_PLACED

        return await self._database.run(work)

    async def place_again(self, change: SubscriptionChanged) -> None:
        """Have those reports of an account placed again that its subscription may concern.

        Raises:
            RowsBusyError: reports are being placed.
            DatabaseUnavailableError: not all are queued.
        """
        account = {"account_id": change.account_id}
        await self._queue(QUEUE_ACCOUNT, account)
        if not runs(change):
            since = change.period_start if ended_early(change) else change.ended_at
            ended = account | {"ended": since or change.as_of}
            await self._database.run(lambda c: c.execute(QUEUE_ENDED, ended))

    async def place_unknown(self) -> None:
        """Have all reports placed again of which it was not known whether they are on an invoice.

        Raises:
            RowsBusyError: reports are being placed.
            DatabaseUnavailableError: not all are queued.
        """
        await self._queue(QUEUE_UNKNOWN, {})

    async def _queue(self, statement: TextClause, of: Mapping[str, Any]) -> None:
        values = {**of, "after": FIRST_ID, "most": MAX_PLACED}

        async def page(connection: AsyncConnection) -> Row[Any] | None:
            await connection.execute(LOCK, {"key": LOCKED})
            return (await connection.execute(statement, values)).one_or_none()

        while (last := await self._database.run(page)) is not None and last.number == MAX_PLACED:
            values["after"] = last.report_id

    async def _store(
        self, connection: AsyncConnection, found: Sequence[Row[Any]]
    ) -> Mapping[Placement, int]:
        """Store placements; return how many are new, or other than before."""
        placed, counts = [], Counter[Placement]()
        for row in found:
            if row.state != "reported":
                continue
            where = _placement(row, row.answered_at, self._grace, self._plans)
            if not row.again or where != (row.before or Placement.IN_PERIOD):
                counts[where] += 1
            if where != Placement.IN_PERIOD:
                placed.append(
                    Placed(
                        row.report_id,
                        row.account_id,
                        row.meter,
                        row.value,
                        row.occurred_at,
                        row.answered_at,
                        where.value,
                    )
                )
        if placed:
            await connection.execute(STORE, arrays(PLACED, placed))
        elsewhere = {each.report_id for each in placed}
        forgotten = [row.report_id for row in found if row.report_id not in elsewhere]
        if forgotten:
            await connection.execute(FORGET, {"report_id": forgotten})
        return counts


async def placement_of(
    connection: AsyncConnection,
    report_id: UUID,
    now: datetime,
    grace: timedelta,
    plans: Plans | None,
) -> Placement:
    """Return where a report of the ledger ended up, or would if it was accepted ``now``."""
    row = (await connection.execute(OF_REPORT, {"report_id": report_id})).one()
    return _placement(row, row.answered_at or now, grace, plans)


def _placement(
    row: Row[Any], answered_at: datetime, grace: timedelta, plans: Plans | None
) -> Placement:
    charged = plans is None or plans.charges_money(row.plan_type, row.meter)
    return place(answered_at, row.ends_at, grace, known=row.known, charged=charged, early=row.early)
