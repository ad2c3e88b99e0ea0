"""Reads where Stripe's sums differ, and what the ledger has in those hours."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database
from usage_ingest.reconciliation import (
    Difference,
    DifferenceKind,
    HourAtStripe,
    HourReport,
    NamedReport,
)
from usage_ingest.storage.counted import difference_of

PAGE: Final = 500

DIFFERENCES: Final = text("""
SELECT * FROM differences
 WHERE closed_at IS NULL
   AND (CAST(:customer AS text) IS NULL OR stripe_customer_id = :customer)
   AND (CAST(:meter AS text) IS NULL OR meter = :meter)
   AND (CAST(:since AS timestamptz) IS NULL OR hour >= :since)
   AND (CAST(:until AS timestamptz) IS NULL OR hour < :until)
   AND (:settled OR settled_at IS NULL)
   AND (first_seen, stripe_customer_id, meter, hour)
       > (:first_seen, :last_customer, :last_meter, :last_hour)
 ORDER BY first_seen, stripe_customer_id, meter, hour LIMIT :most
""")

HOUR_REPORTS: Final = text("""
SELECT r.report_id, r.identifier, r.value, r.state, r.ever_unknown, r.reason, r.forwarded_at,
       CASE WHEN r.state = 'shadow' THEN r.created_at ELSE r.answered_at END AS answered_at
  FROM usage_reports r
 WHERE date_bin('1 hour', r.occurred_at, timestamptz 'epoch') = :hour
   AND r.user_id IN (SELECT account_id FROM account_customers
                      WHERE stripe_customer_id = :stripe_customer_id)
   AND r.stripe_customer_id = :stripe_customer_id AND r.meter = :meter
 ORDER BY r.created_at, r.report_id
""")

SUM: Final = text("""
SELECT h.as_of, h.value AS counted, h.lagging, d.kind, d.expected, d.at_most, d.settlement
  FROM counted_hours h
  LEFT JOIN differences d
         ON (d.stripe_customer_id, d.meter, d.hour) = (h.stripe_customer_id, h.meter, h.hour)
        AND d.closed_at IS NULL
 WHERE h.stripe_customer_id = :stripe_customer_id AND h.meter = :meter AND h.hour = :hour
""")

# As a reading that is being stored does: it says whether what a person has settled is the same.
LOCK_PAIR: Final = text("""
SELECT FROM counted_pairs
 WHERE stripe_customer_id = :stripe_customer_id AND meter = :meter FOR UPDATE
""")
SETTLE: Final = text("""
UPDATE differences SET settled_at = now(), settlement = :settlement
 WHERE stripe_customer_id = :stripe_customer_id AND meter = :meter AND hour = :hour
   AND closed_at IS NULL
RETURNING hour, kind, expected, at_most, counted
""")


@dataclass(frozen=True, slots=True)
class OpenDifference:
    """A difference, whose it is, since when it is known, and the reports of its hour.

    ``settlement`` is what a person noted who settled it, as it is now.
    """

    customer: str
    meter: str
    difference: Difference
    first_seen: datetime
    last_seen: datetime
    reports: tuple[NamedReport, ...]
    settlement: str | None

    def is_late(self, now: datetime, allowed: timedelta) -> bool:
        """Whether it has been known for longer than ``allowed``, and nobody has settled it."""
        return self.settlement is None and now - self.first_seen > allowed


async def settle(
    database: Database, customer: str, meter: str, hour: datetime, settlement: str
) -> Difference | None:
    """Note of an open difference that it is settled; return it, or ``None`` if there is none.

    It counts as settled as long as it does not change.

    Raises:
        RowsBusyError: a reading of its sums is being stored; nothing was noted.
        DatabaseUnavailableError: nothing was noted.
    """
    values = {
        "stripe_customer_id": customer,
        "meter": meter,
        "hour": hour,
        "settlement": settlement,
    }

    async def work(connection: AsyncConnection) -> Difference | None:
        await connection.execute(LOCK_PAIR, values)
        row = (await connection.execute(SETTLE, values)).first()
        return None if row is None else difference_of(row)

    return await database.run(work)


class DifferenceReader:
    """Reads differences and changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open_ones(
        self,
        *,
        customer: str | None,
        meter: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        settled: bool,
    ) -> AsyncIterator[OpenDifference]:
        """Yield the open differences, those first that are known for the longest.

        If ``settled``, with those that a person has settled.
        ``since`` and ``until`` bound their hours; the last one begins before ``until``.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        place: dict[str, Any] = {
            "first_seen": datetime.min,  # noqa: DTZ901 - minus infinity to the driver
            "last_customer": "",
            "last_meter": "",
            "last_hour": datetime.min,  # noqa: DTZ901 - likewise
        }
        wanted = {
            "customer": customer,
            "meter": meter,
            "since": since,
            "until": until,
            "settled": settled,
            "most": PAGE,
        }

        async def page(connection: AsyncConnection) -> Sequence[Row[Any]]:
            return (await connection.execute(DIFFERENCES, wanted | place)).all()

        while found := await self._database.run(page):
            for row in found:
                # One by one: an hour may have thousands of reports.
                reports = await self._database.run(partial(_reports, of=row._asdict()))
                yield OpenDifference(
                    row.stripe_customer_id,
                    row.meter,
                    difference_of(row),
                    row.first_seen,
                    row.last_seen,
                    reports,
                    row.settlement,
                )
            last = found[-1]
            place = {
                "first_seen": last.first_seen,
                "last_customer": last.stripe_customer_id,
                "last_meter": last.meter,
                "last_hour": last.hour,
            }

    async def hour(self, customer: str, meter: str, hour: datetime) -> HourAtStripe | None:
        """Return Stripe's sum of an hour, ``None`` if it was not read since it has reports.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        of = {"stripe_customer_id": customer, "meter": meter, "hour": hour}

        async def work(connection: AsyncConnection) -> HourAtStripe | None:
            row = (await connection.execute(SUM, of)).one_or_none()
            if row is None:
                return None
            difference = None
            if row.kind is not None:
                kind = DifferenceKind(row.kind)
                difference = Difference(hour, kind, row.expected, row.at_most, row.counted)
            reports = await _reports(connection, of)
            return HourAtStripe(
                row.as_of, row.counted, row.lagging, difference, row.settlement, reports
            )

        return await self._database.run(work)


async def _reports(connection: AsyncConnection, of: Mapping[str, Any]) -> tuple[NamedReport, ...]:
    names = ("stripe_customer_id", "meter", "hour")
    rows = await connection.execute(HOUR_REPORTS, {name: of[name] for name in names})
    return tuple(
        NamedReport(
            row.identifier,
            row.reason,
            HourReport(
                row.report_id,
                row.value,
                row.state,
                row.answered_at,
                row.ever_unknown,
                row.forwarded_at,
            ),
        )
        for row in rows
    )
