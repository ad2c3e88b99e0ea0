"""Queries of commands on single facts: what became of a run, who pays, what was not answered."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping, text

from nexus_contracts import UsageRecorded
from nexus_database import Database
from nexus_plans import Plans
from usage_ingest.explanation import MAX_COUNTED, Assignment, EventHistory
from usage_ingest.payers import assigned_at
from usage_ingest.storage.differences import DifferenceReader
from usage_ingest.storage.periods import placement_of
from usage_ingest.storage.reports import InvalidReportError, recorded_report
from usage_ingest.windows import whole_hour

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
        CROSS JOIN LATERAL (
              SELECT FROM usage_events e
               WHERE e.claim_id = c.claim_id AND e.user_id = :user_id
                 AND e.occurred_at >= t.since AND e.occurred_at < t.until OFFSET 0) e
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


class LedgerReader:
    """Reads the ledger and changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
