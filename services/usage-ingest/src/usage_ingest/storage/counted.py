"""Stripe's sums, `counted_pairs` and `counted_hours`, and where they differ, `differences`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_contracts import UsageCounted
from nexus_database import Database
from usage_ingest.columns import Column, arrays, names, rows, selected
from usage_ingest.reconciliation import (
    Difference,
    DifferenceKind,
    ReportSum,
    compare_reading,
    opened,
    standing_of,
)
from usage_ingest.stripes_word import DifferenceCount

HOUR: Final = timedelta(hours=1)

# It also keeps other readings of the pair waiting until this one is stored.
PAIR: Final = text("""
INSERT INTO counted_pairs AS p (stripe_customer_id, meter, as_of)
VALUES (:stripe_customer_id, :meter, :as_of)
ON CONFLICT (stripe_customer_id, meter) DO UPDATE SET as_of = greatest(p.as_of, excluded.as_of)
""")

ACCOUNTS: Final = text("""
SELECT account_id FROM account_customers WHERE stripe_customer_id = :stripe_customer_id
""")

# Each hour and account is looked up in the index of hours. An hour may have thousands of reports:
# those are added up of which a comparison says the same.
REPORTS: Final = text("""
SELECT hour, state, ever_unknown, max(answered_at) AS answered_at, sum(value) AS value
  FROM (SELECT date_bin('1 hour', occurred_at, timestamptz 'epoch') AS hour, state, ever_unknown,
               value, CASE WHEN state = 'shadow' THEN created_at ELSE answered_at END AS answered_at
          FROM usage_reports
         WHERE date_bin('1 hour', occurred_at, timestamptz 'epoch')
               = ANY(CAST(:hours AS timestamptz[]))
           AND user_id = ANY(CAST(:accounts AS uuid[]))
           AND stripe_customer_id = :stripe_customer_id AND meter = :meter) r
 GROUP BY hour, state, ever_unknown, answered_at > :shown_by
""")

BEFORE: Final = text("""
SELECT h.hour, h.lagging, h.as_of, d.kind, d.expected, d.at_most, d.counted, d.settled_at
  FROM counted_hours h
  LEFT JOIN differences d
         ON (d.stripe_customer_id, d.meter, d.hour) = (h.stripe_customer_id, h.meter, h.hour)
        AND d.closed_at IS NULL
 WHERE h.stripe_customer_id = :stripe_customer_id AND h.meter = :meter
   AND h.hour >= :start AND h.hour < :end
""")

HOURS: Final = (
    Column("hour", "timestamptz", "hour"),
    Column("value", "double precision", "value"),
    Column("lagging", "boolean", "lagging"),
)
FORGET: Final = text("""
DELETE FROM counted_hours
 WHERE stripe_customer_id = :stripe_customer_id AND meter = :meter
   AND hour >= :start AND hour < :end AND hour <> ALL(CAST(:hour AS timestamptz[]))
   AND as_of <= :as_of
""")
KEEP: Final = text(f"""
INSERT INTO counted_hours (stripe_customer_id, meter, as_of, {names(HOURS)})
SELECT :stripe_customer_id, :meter, :as_of, {selected(HOURS)} FROM {rows(HOURS)}
ON CONFLICT (stripe_customer_id, meter, hour) DO UPDATE
   SET value = excluded.value, lagging = excluded.lagging, as_of = excluded.as_of
""")  # noqa: S608 - made of names in this program

DIFFERENCES: Final = (
    Column("hour", "timestamptz", "hour"),
    Column("kind", "text", "kind"),
    Column("expected", "bigint", "expected"),
    Column("at_most", "bigint", "at_most"),
    Column("counted", "double precision", "counted"),
)
CLOSE: Final = text("""
UPDATE differences SET closed_at = :as_of
 WHERE stripe_customer_id = :stripe_customer_id AND meter = :meter
   AND hour >= :start AND hour < :end AND hour <> ALL(CAST(:hour AS timestamptz[]))
   AND closed_at IS NULL AND last_seen <= :as_of
RETURNING hour
""")
OPEN: Final = text(f"""
INSERT INTO differences AS d (
    stripe_customer_id, meter, first_seen, last_seen, {names(DIFFERENCES)})
SELECT :stripe_customer_id, :meter, :as_of, :as_of, {selected(DIFFERENCES)}
  FROM {rows(DIFFERENCES)}
ON CONFLICT (stripe_customer_id, meter, hour) DO UPDATE
   SET kind = excluded.kind, expected = excluded.expected, at_most = excluded.at_most,
       counted = excluded.counted, last_seen = excluded.last_seen, closed_at = NULL,
       first_seen = CASE WHEN d.hour = ANY(:opened) THEN :as_of ELSE d.first_seen END,
       settled_at = CASE WHEN d.hour = ANY(:opened) THEN NULL ELSE d.settled_at END,
       settlement = CASE WHEN d.hour = ANY(:opened) THEN NULL ELSE d.settlement END
""")  # noqa: S608 - likewise


OPEN_NOW: Final = text("""
SELECT kind, count(*) AS number, min(first_seen) AS oldest
  FROM (SELECT kind, first_seen FROM differences
         WHERE closed_at IS NULL AND settled_at IS NULL
         ORDER BY first_seen LIMIT CAST(:most AS bigint)) d
 GROUP BY kind ORDER BY oldest, kind
""")

LAST_READING: Final = text("SELECT max(as_of) FROM counted_pairs")

LAST_READING_OF: Final = text("""
SELECT max(as_of) FROM counted_pairs
 WHERE (CAST(:customer AS text) IS NULL OR stripe_customer_id = :customer)
   AND (CAST(:meter AS text) IS NULL OR meter = :meter)
""")


@dataclass(frozen=True, slots=True)
class Compared:
    """What a reading changed: differences that were not known, and how many are none any more."""

    opened: tuple[Difference, ...]
    closed: int
    lags: tuple[float, ...]


class CountedSums:
    """Stores what Stripe has counted, and the differences; ``lag`` is how long Stripe may take."""

    def __init__(self, database: Database, *, lag: timedelta) -> None:
        self._database = database
        self._lag = lag

    async def apply(self, reading: UsageCounted) -> Compared:
        """Store a reading and compare its hours, but for those that were read since.

        Raises:
            RowsBusyError: another reading of the same customer and meter is being stored.
            DatabaseUnavailableError: nothing was stored.
        """
        pair = {"stripe_customer_id": reading.stripe_customer_id, "meter": reading.meter}
        span = pair | {"start": reading.start, "end": reading.end}
        when = {"as_of": reading.as_of}

        async def work(connection: AsyncConnection) -> Compared:
            await connection.execute(PAIR, pair | when)
            before = (await connection.execute(BEFORE, span)).all()
            accounts = (await connection.execute(ACCOUNTS, pair)).scalars().all()
            looked_up = pair | {
                "accounts": accounts,
                "hours": _hours(reading),
                "shown_by": reading.as_of - self._lag,
            }
            comparison = compare_reading(
                reading,
                _by_hour(await connection.execute(REPORTS, looked_up)),
                lagged={row.hour for row in before if row.lagging},
                read_since={row.hour for row in before if row.as_of > reading.as_of},
                ours=bool(accounts),
                lag=self._lag,
            )
            kept = arrays(HOURS, comparison.hours)
            await connection.execute(FORGET, span | when | {"hour": kept["hour"]})
            await connection.execute(KEEP, pair | when | kept)

            different = arrays(DIFFERENCES, comparison.differences)
            closed = await connection.execute(CLOSE, span | when | {"hour": different["hour"]})
            found = opened(
                comparison.differences,
                known={row.hour: difference_of(row) for row in before if row.kind is not None},
                settled={row.hour for row in before if row.settled_at is not None},
            )
            hours = {"opened": [each.hour for each in found]}
            await connection.execute(OPEN, pair | when | different | hours)
            return Compared(found, len(closed.all()), comparison.lags)

        return await self._database.run(work)

    async def last_reading(self) -> datetime | None:
        """Return when Stripe's sums were read last, if ever. Raises what ``apply`` raises."""
        return await find_last_reading(self._database)

    async def open_differences(self) -> Sequence[DifferenceCount]:
        """Return the differences that are open, by kind.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        found = await self._database.run(lambda c: c.execute(OPEN_NOW, {"most": None}))
        return [DifferenceCount(**row._asdict()) for row in found]


async def find_last_reading(
    database: Database, *, customer: str | None = None, meter: str | None = None
) -> datetime | None:
    """Return when Stripe's sums, all or those of a ``customer`` or ``meter``, were read last.

    Raises:
        DatabaseUnavailableError: the database can't be used.
    """
    of = {"customer": customer, "meter": meter}
    found = await database.run(lambda c: c.execute(LAST_READING_OF, of))
    last: datetime | None = found.scalar_one()
    return last


def _hours(reading: UsageCounted) -> list[datetime]:
    number = int((reading.end - reading.start) / HOUR)
    return [reading.start + place * HOUR for place in range(number)]


def difference_of(row: Row[Any]) -> Difference:
    """Return the difference that a row of ``differences`` stores."""
    return Difference(row.hour, DifferenceKind(row.kind), row.expected, row.at_most, row.counted)


def _by_hour(sums: Iterable[Row[Any]]) -> dict[datetime, list[ReportSum]]:
    found: dict[datetime, list[ReportSum]] = {}
    for row in sums:
        standing = standing_of(row.state, ever_unknown=row.ever_unknown)
        added_up = ReportSum(int(row.value), standing, row.answered_at)
        found.setdefault(row.hour, []).append(added_up)
    return found
