"""What people ask of the ledger: how do things stand, and what became of this run."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_contracts import UsageRecorded
from nexus_database import Database
from usage_ingest.reports import InexpressibleError, recorded_report

MOST_COUNTED: Final = 100_000
"""Of a state. What is unfinished is read row by row, so counting has to end somewhere."""

UNFINISHED: Final = {"due", "pending", "forwarded"}
"""The states that time alone should end, of events and of reports."""

EVENTS: Final = text("""
SELECT e.state, r.meter, count(*) AS number, sum(r.value::bigint)::bigint AS value,
       min(e.occurred_at) AS oldest, max(e.seen) >= :most AS more
  FROM (SELECT 'waiting' AS state, w.*, count(*) OVER () AS seen
          FROM (SELECT readings, occurred_at FROM usage_events
                 WHERE billing_state = 'waiting' ORDER BY occurred_at LIMIT :most) w
         UNION ALL
        SELECT 'due', d.*, count(*) OVER ()
          FROM (SELECT readings, occurred_at FROM usage_events
                 WHERE billing_state = 'due' ORDER BY occurred_at LIMIT :most) d) e
 CROSS JOIN LATERAL jsonb_each_text(e.readings) r(meter, value)
 GROUP BY 1, 2 ORDER BY e.state DESC, r.meter
""")

REPORTS: Final = text("""
SELECT state, meter, count(*) AS number, sum(value)::bigint AS value, min(created_at) AS oldest,
       max(seen) >= :most AS more
  FROM (SELECT 1 AS step, p.*, count(*) OVER () AS seen
          FROM (SELECT state, meter, value, created_at FROM usage_reports
                 WHERE state = 'pending' ORDER BY created_at LIMIT :most) p
         UNION ALL
        SELECT 2, f.*, count(*) OVER ()
          FROM (SELECT state, meter, value, created_at FROM usage_reports
                 WHERE state = 'forwarded' ORDER BY created_at LIMIT :most) f
         UNION ALL
        SELECT 3, r.*, count(*) OVER ()
          FROM (SELECT state, meter, value, created_at FROM usage_reports
                 WHERE state = 'rejected' LIMIT :most) r) u
 GROUP BY step, state, meter ORDER BY step, meter
""")

# Out of an index alone: it holds what is added up here.
REPORTED: Final = text("""
SELECT 'reported' AS state, meter, count(*) AS number, sum(value)::bigint AS value,
       min(answered_at) AS oldest, false AS more
  FROM usage_reports WHERE state = 'reported' AND answered_at >= :since
 GROUP BY meter ORDER BY meter
""")

# A trace of the last recording, each out of an index: a run that is recorded is soon in a report.
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
  (SELECT created_at FROM usage_reports WHERE state = 'reported' ORDER BY answered_at DESC LIMIT 1)
) newest
""")

EVENT: Final = text("""
SELECT e.*, a.stripe_customer_id
  FROM usage_events e LEFT JOIN billing_accounts a USING (user_id)
 WHERE e.event_id = :event_id
""")

CLAIM: Final = text("""
SELECT * FROM usage_reports WHERE claim_id = :claim_id ORDER BY meter, created_at
""")

# In the order of an index of these alone: a table of millions is not gone through for some.
UNANSWERED: Final = text("""
SELECT report_id, identifier, meter, value, stripe_customer_id, dimensions, occurred_at,
       event_count, claim_id, created_at
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


@dataclass(frozen=True, slots=True)
class Tally:
    """How many rows of a state read on a meter, what they add up to, and since when.

    With ``more`` there are more of that state than were counted, the oldest of them first.
    """

    state: str
    meter: str
    number: int
    value: int
    oldest: datetime
    more: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """What is unfinished by state, and what was reported ``since``.

    ``newest`` is when usage was last seen to be recorded, at the latest a few seconds after it
    was; runs that are not billable leave no trace of it.
    """

    since: datetime
    events: tuple[Tally, ...]
    reports: tuple[Tally, ...]
    newest: datetime | None

    def oldest_unfinished(self, now: datetime) -> timedelta:
        """Return the age of the oldest event or report that Stripe has not answered for.

        Usage that waits for a customer is not ours to hurry, so it is left out.
        """
        oldest = (e.oldest for e in (*self.events, *self.reports) if e.state in UNFINISHED)
        return max((now - each for each in oldest), default=timedelta(0))


@dataclass(frozen=True, slots=True)
class Trace:
    """An event's row, and the rows of the reports it went into."""

    event: Mapping[str, Any]
    reports: tuple[Mapping[str, Any], ...]


class Inquiries:
    """Reads, and changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def standing(self, since: datetime) -> Standing:
        """Count what is unfinished and what was reported ``since``.

        Raises:
            DatabaseUnavailableError: it can't be asked.
        """

        async def work(connection: AsyncConnection) -> Standing:
            found = [
                tuple(Tally(**row) for row in (await connection.execute(query, values)).mappings())
                for query, values in (
                    (EVENTS, {"most": MOST_COUNTED}),
                    (REPORTS, {"most": MOST_COUNTED}),
                    (REPORTED, {"since": since}),
                )
            ]
            newest = (await connection.execute(NEWEST)).scalar_one()
            return Standing(since, found[0], found[1] + found[2], newest)

        return await self._database.run(work)

    async def trace(self, event_id: UUID) -> Trace | None:
        """Follow one event, or return nothing if the ledger does not have it.

        Raises:
            DatabaseUnavailableError: it can't be asked.
        """
        found = await self._database.run(lambda c: c.execute(EVENT, {"event_id": event_id}))
        event = found.mappings().one_or_none()
        if event is None:
            return None
        claim = {"claim_id": event["claim_id"]}
        reports = await self._database.run(lambda c: c.execute(CLAIM, claim))
        return Trace(dict(event), tuple(dict(row) for row in reports.mappings()))

    async def unanswered(
        self, before: datetime, *, page: int = 100
    ) -> AsyncIterator[UsageRecorded | InexpressibleError]:
        """Yield reports forwarded ``before`` and never answered, the oldest first.

        In place of a row that no event can carry comes what is wrong with it.

        Raises:
            DatabaseUnavailableError: it can't be asked.
        """
        last: dict[str, Any] = {"created_at": BEGINNING, "report_id": FIRST_ID}
        while rows := await self._page({"before": before, "most": page, **last}):
            for row in rows:
                try:
                    yield recorded_report(row)
                except InexpressibleError as error:
                    yield error
            last = {name: rows[-1][name] for name in last}

    async def _page(self, values: Mapping[str, Any]) -> Sequence[RowMapping]:
        found = await self._database.run(lambda c: c.execute(UNANSWERED, values))
        return found.mappings().all()

    async def unanswered_number(self, before: datetime) -> int:
        """Count the reports forwarded ``before`` and never answered.

        Raises:
            DatabaseUnavailableError: it can't be asked.
        """
        found = await self._database.run(lambda c: c.execute(UNANSWERED_NUMBER, {"before": before}))
        return int(found.scalar_one())
