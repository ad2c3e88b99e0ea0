"""Queries of the commands: what is unfinished, what became of a run, what was not answered."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_contracts import UsageRecorded
from nexus_database import Database
from nexus_plans import Plans
from usage_ingest.explanation import MAX_COUNTED, Assignment, EventHistory
from usage_ingest.payers import assigned_at
from usage_ingest.periods import Placement
from usage_ingest.status import MAX_REPORTED, MAX_SUMMED, LedgerCounts, StateCount
from usage_ingest.storage.counted import LAST_READING, OPEN_NOW
from usage_ingest.storage.differences import DifferenceReader
from usage_ingest.storage.figures import figures
from usage_ingest.storage.periods import SUMS, placement_of
from usage_ingest.storage.reports import InvalidReportError, recorded_report
from usage_ingest.stripes_word import MAX_SHOWN, DifferenceCount, PlacementCount, StripesWord
from usage_ingest.windows import whole_hour

# Most events have the same readings: grouped first, they are taken apart once.
EVENTS: Final = text("""
SELECT e.state, r.meter, sum(e.number)::bigint AS number,
       sum(e.number * r.value::bigint)::bigint AS value, min(e.oldest) AS oldest
  FROM (SELECT state, readings, count(*) AS number, min(occurred_at) AS oldest
          FROM ((SELECT 'waiting' AS state, readings, occurred_at FROM usage_events
                  WHERE billing_state = 'waiting' ORDER BY occurred_at LIMIT :most)
                 UNION ALL
                (SELECT 'due', readings, occurred_at FROM usage_events
                  WHERE billing_state = 'due' ORDER BY occurred_at LIMIT :most)) u
         GROUP BY state, readings) e
 CROSS JOIN LATERAL jsonb_each_text(e.readings) r(meter, value)
 GROUP BY 1, 2 ORDER BY e.state DESC, r.meter
""")

REPORTS: Final = text("""
SELECT state, meter, count(*) AS number, sum(value)::bigint AS value, min(created_at) AS oldest
  FROM ((SELECT 1 AS step, state, meter, value, created_at FROM usage_reports
          WHERE state = 'pending' ORDER BY created_at LIMIT :most)
         UNION ALL
        (SELECT 2, state, meter, value, created_at FROM usage_reports
          WHERE state = 'forwarded' ORDER BY created_at LIMIT :most)
         UNION ALL
        (SELECT 3, state, meter, value, created_at FROM usage_reports
          WHERE state = 'rejected' LIMIT :most)
         UNION ALL
        (SELECT 4, state, meter, value, created_at FROM usage_reports
          WHERE state = 'rejected_later' LIMIT :most)) u
 GROUP BY step, state, meter ORDER BY step, meter
""")

# From an index alone: it contains what is added up here.
REPORTED: Final = text("""
SELECT 'reported' AS state, meter, count(*) AS number, sum(value)::bigint AS value,
       min(answered_at) AS oldest
  FROM (SELECT meter, value, answered_at FROM usage_reports
         WHERE state = 'reported' AND answered_at >= :since
         ORDER BY answered_at DESC LIMIT CAST(:most AS bigint)) r
 GROUP BY meter ORDER BY meter
""")

SHADOW: Final = text("""
SELECT 'shadow' AS state, meter, count(*) AS number, sum(value)::bigint AS value,
       min(created_at) AS oldest
  FROM (SELECT meter, value, created_at FROM usage_reports
         WHERE state = 'shadow' AND created_at >= :since
         ORDER BY created_at DESC LIMIT CAST(:most AS bigint)) r
 GROUP BY meter ORDER BY meter
""")

# The newest rows of each state, each from an index: a run that is recorded is soon in a report.
NEWEST: Final = text("""
SELECT max(created_at) FROM (
  (SELECT created_at FROM usage_events
    WHERE billing_state = 'due' ORDER BY occurred_at DESC LIMIT 1)
   UNION ALL
  (SELECT created_at FROM usage_events
    WHERE billing_state = 'waiting' ORDER BY occurred_at DESC LIMIT 1)
   UNION ALL
  (SELECT created_at FROM usage_reports WHERE state = 'pending' ORDER BY created_at DESC LIMIT 1)
   UNION ALL
  (SELECT created_at FROM usage_reports WHERE state = 'forwarded' ORDER BY created_at DESC LIMIT 1)
   UNION ALL
  (SELECT created_at FROM usage_reports WHERE state = 'shadow' ORDER BY created_at DESC LIMIT 1)
   UNION ALL
  (SELECT created_at FROM usage_reports WHERE state = 'reported' ORDER BY answered_at DESC LIMIT 1)
) newest
""")

EVENT: Final = text(f"""
SELECT e.*, coalesce(assigned.account_id, e.user_id) AS account_id, a.stripe_customer_id,
       c.user_id AS claimed_for, d.created_at AS details_created_at, d.model,
       d.input_tokens, d.output_tokens, d.cached_tokens,
       p.model AS priced_as, p.valid_from AS priced_from, p.source AS price_source,
       u.state AS lacked_price, l.value AS late_value, l.created_at AS late_at,
       l.billing_state AS late_state, l.claim_id AS late_claim_id
  FROM usage_events e
  {assigned_at("e")}
  LEFT JOIN billing_accounts a ON a.user_id = coalesce(assigned.account_id, e.user_id)
  LEFT JOIN usage_details d USING (event_id)
  LEFT JOIN unpriced_runs u USING (event_id)
  LEFT JOIN LATERAL (SELECT * FROM late_readings WHERE event_id = e.event_id LIMIT 1) l ON true
  LEFT JOIN model_prices p ON p.price_id = coalesce(l.price_id, d.price_id)
  LEFT JOIN LATERAL (SELECT user_id FROM usage_reports
                      WHERE claim_id = e.claim_id AND state <> 'superseded' LIMIT 1) c ON true
 WHERE e.event_id = :event_id
""")  # noqa: S608 - of this project's constants

# Runs from the assignment's time on may have been claimed before the assignment was known, for any
# account that the user was in by then. Their reports are found by the hours in which the user has
# runs: a claim's time is that of its earliest run, which is perhaps of the hour before.
ASSIGNMENTS: Final = text("""
WITH times AS MATERIALIZED (
    SELECT account_id, since, revision, created_at,
           lead(since, 1, 'infinity') OVER (ORDER BY since, revision) AS until
      FROM (SELECT account_id, since, revision, created_at FROM account_assignments
             WHERE user_id = :user_id
             UNION ALL SELECT CAST(:user_id AS uuid), '-infinity', 0, '-infinity') a
)
SELECT t.account_id, nullif(t.since, '-infinity') AS since, t.revision,
       nullif(t.created_at, '-infinity') AS known_at,
       EXISTS (SELECT FROM billing_accounts WHERE user_id = t.account_id) AS has_customer,
       (SELECT count(*)
          FROM (SELECT FROM usage_events
                 WHERE user_id = :user_id AND billing_state = 'waiting'
                   AND occurred_at >= t.since AND occurred_at < t.until LIMIT :most) w) AS waiting,
       stay.account_id AS claimed_for, stay.runs
  FROM times t
  LEFT JOIN LATERAL (
       SELECT c.account_id, count(*) AS runs
         FROM (SELECT DISTINCT r.claim_id, r.user_id AS account_id
                 FROM (SELECT u.hour - b.back AS hour
                         FROM hourly_usage u
                        CROSS JOIN (VALUES (interval '0'), (interval '1 hour')) b(back)
                        WHERE u.user_id = :user_id AND u.hour < t.until
                          AND u.hour > t.since - interval '1 hour' AND u.hour <= t.created_at
                        GROUP BY 1) h
                 JOIN usage_reports r
                   ON date_bin('1 hour', r.occurred_at, timestamptz 'epoch') = h.hour
                WHERE r.user_id = ANY(ARRAY(SELECT account_id FROM times))
                  AND r.user_id <> t.account_id AND r.state <> 'superseded'
                  AND r.occurred_at BETWEEN t.since - interval '1 minute' AND t.created_at
                LIMIT :most) c
         JOIN usage_events e USING (claim_id)
        WHERE e.user_id = :user_id AND e.occurred_at >= t.since AND e.occurred_at < t.until
        GROUP BY 1) stay ON true
 ORDER BY t.since, t.revision, stay.account_id
""")

# Each half is the condition of a partial index.
CLAIM: Final = text("""
SELECT * FROM usage_reports
 WHERE claim_id IN (CAST(:claim_id AS uuid), CAST(:late_claim_id AS uuid)) AND state <> 'superseded'
 UNION ALL
SELECT * FROM usage_reports
 WHERE claim_id IN (CAST(:claim_id AS uuid), CAST(:late_claim_id AS uuid)) AND state = 'superseded'
 ORDER BY late, meter, created_at
""")

# In the order of the partial index: a table of millions of reports is not read for a few.
UNANSWERED: Final = text("""
SELECT report_id, identifier, meter, value, stripe_customer_id, dimensions, occurred_at,
       event_count, claim_id, late, created_at
  FROM usage_reports
 WHERE state = 'forwarded' AND forwarded_at < :before
   AND created_at >= :created_at AND (created_at, report_id) > (:created_at, :report_id)
 ORDER BY created_at, report_id LIMIT :most
""")

FIRST_ID: Final = UUID(int=0)
BEGINNING: Final = datetime(2000, 1, 1, tzinfo=UTC)

UNANSWERED_NUMBER: Final = text("""
SELECT count(*) FROM usage_reports WHERE state = 'forwarded' AND forwarded_at < :before
""")


def _newest(rows: Sequence[RowMapping], most: int | None) -> list[StateCount]:
    """Return the counts of a finished state, of which at most ``most`` rows were added up."""
    cut = sum(row["number"] for row in rows) == most
    return [StateCount(**row, total=None, more=cut) for row in rows]


class LedgerReader:
    """Reads the ledger and changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def counts(self, since: datetime, *, all_reported: bool = False) -> LedgerCounts:
        """Count what is unfinished and what was reported ``since``.

        Every query reads a bounded number of rows, however large the ledger is, unless
        ``all_reported`` are added up.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        newest_only = None if all_reported else MAX_REPORTED

        async def rows(
            connection: AsyncConnection, query: TextClause, **values: object
        ) -> Sequence[RowMapping]:
            return (await connection.execute(query, values)).mappings().all()

        async def work(connection: AsyncConnection) -> LedgerCounts:
            totals = {
                (figure.of, figure.state): figure.number for figure in await figures(connection)
            }
            events = await rows(connection, EVENTS, most=MAX_SUMMED)
            unfinished = await rows(connection, REPORTS, most=MAX_SUMMED)
            reported = await rows(connection, REPORTED, since=since, most=newest_only)
            shadow = await rows(connection, SHADOW, since=since, most=newest_only)
            differences = await rows(connection, OPEN_NOW, most=MAX_SHOWN)
            placed = await rows(connection, SUMS, since=since, most=MAX_SHOWN)
            return LedgerCounts(
                since,
                tuple(StateCount.of(row, totals["events", row["state"]]) for row in events),
                (
                    *(StateCount.of(row, totals["reports", row["state"]]) for row in unfinished),
                    *_newest(reported, newest_only),
                    *_newest(shadow, newest_only),
                ),
                (await connection.execute(NEWEST)).scalar_one(),
                StripesWord(
                    tuple(DifferenceCount(**row) for row in differences),
                    tuple(
                        PlacementCount(Placement(row["placement"]), row["number"]) for row in placed
                    ),
                    (await connection.execute(LAST_READING)).scalar_one(),
                ),
            )

        return await self._database.run(work)

    async def history(
        self, event_id: UUID, now: datetime, grace: timedelta, plans: Plans | None
    ) -> EventHistory | None:
        """Return an event and its reports, or ``None`` if it is not in the ledger.

        ``grace`` is how long Stripe takes usage after the end of its billing period; ``plans`` say
        what is charged.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        found = await self._database.run(lambda c: c.execute(EVENT, {"event_id": event_id}))
        event = found.mappings().one_or_none()
        if event is None:
            return None
        claims = {name: event[name] for name in ("claim_id", "late_claim_id")}
        reports = await self._database.run(lambda c: c.execute(CLAIM, claims))
        rows = tuple(dict(row) for row in reports.mappings())
        differences = DifferenceReader(self._database)
        sums = [
            await differences.hour(
                row["stripe_customer_id"], row["meter"], whole_hour(row["occurred_at"])
            )
            for row in rows
        ]
        placements = [
            await self._database.run(
                partial(placement_of, report_id=row["report_id"], now=now, grace=grace, plans=plans)
            )
            for row in rows
        ]
        return EventHistory(dict(event), rows, tuple(sums), tuple(placements))

    async def assignments(self, user_id: UUID) -> Sequence[Assignment]:
        """Return a user's assignments by their time, first the one to their own account.

        Of each at most ``MAX_COUNTED`` waiting runs are counted, and those of as many claims.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        values = {"user_id": user_id, "most": MAX_COUNTED}
        found = await self._database.run(lambda c: c.execute(ASSIGNMENTS, values))
        by_revision: dict[tuple[datetime | None, int], Assignment] = {}
        for row in found:
            assignment = by_revision.setdefault(
                (row.since, row.revision),
                Assignment(
                    row.account_id,
                    row.since,
                    row.revision,
                    row.known_at,
                    row.has_customer,
                    row.waiting,
                    {},
                ),
            )
            if row.claimed_for is not None:
                assignment.stay[row.claimed_for] = row.runs
        return list(by_revision.values())

    async def unanswered(
        self, before: datetime, *, page: int = 100
    ) -> AsyncIterator[UsageRecorded | InvalidReportError]:
        """Yield reports forwarded ``before`` and never answered, the oldest first.

        For a row that no event can carry, yield the error instead.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        last: dict[str, Any] = {"created_at": BEGINNING, "report_id": FIRST_ID}
        while rows := await self._page({"before": before, "most": page, **last}):
            for row in rows:
                try:
                    yield recorded_report(row)
                except InvalidReportError as error:
                    yield error
            last = {name: rows[-1][name] for name in last}

    async def _page(self, values: Mapping[str, Any]) -> Sequence[RowMapping]:
        found = await self._database.run(lambda c: c.execute(UNANSWERED, values))
        return found.mappings().all()

    async def unanswered_number(self, before: datetime) -> int:
        """Count the reports forwarded ``before`` and never answered.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        found = await self._database.run(lambda c: c.execute(UNANSWERED_NUMBER, {"before": before}))
        return int(found.scalar_one())
