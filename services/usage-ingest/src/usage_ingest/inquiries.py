"""What people ask of the ledger: how do things stand, and what became of this run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from nexus_contracts import UsageRecorded
from nexus_database import Database
from usage_ingest.reports import recorded_report

EVENTS: Final = text("""
SELECT billing_state AS state, count(*) AS number, min(occurred_at) AS oldest
  FROM usage_events GROUP BY 1
""")

REPORTS: Final = text("""
SELECT state, meter, count(*) AS number, sum(value)::bigint AS value, min(created_at) AS oldest
  FROM usage_reports GROUP BY 1, 2 ORDER BY 1, 2
""")

EVENT: Final = text("""
SELECT e.*, a.stripe_customer_id
  FROM usage_events e LEFT JOIN billing_accounts a USING (user_id)
 WHERE e.event_id = :event_id
""")

CLAIM: Final = text("""
SELECT * FROM usage_reports WHERE claim_id = :claim_id ORDER BY meter, created_at
""")

UNANSWERED: Final = text("""
SELECT report_id, identifier, meter, value, stripe_customer_id, dimensions, occurred_at,
       event_count, claim_id
  FROM usage_reports
 WHERE state = 'forwarded' AND forwarded_at < :before AND report_id > :after
 ORDER BY report_id LIMIT :most
""")

FIRST_ID: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Tally:
    """How many rows are in a state, since when, and what they are worth on a meter."""

    state: str
    meter: str | None
    number: int
    value: int | None
    oldest: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """Events and reports by state."""

    events: tuple[Tally, ...]
    reports: tuple[Tally, ...]

    def oldest_unfinished(self, now: datetime) -> timedelta:
        """Return the age of the oldest event or report that Stripe has not answered for.

        Usage that waits for a customer is not ours to hurry, so it is left out.
        """
        unfinished = [each.oldest for each in self.events if each.state == "due"]
        unfinished += [
            each.oldest for each in self.reports if each.state in {"pending", "forwarded"}
        ]
        return max((now - each for each in unfinished), default=timedelta(0))


@dataclass(frozen=True, slots=True)
class Trace:
    """An event's row, and the rows of the reports it went into."""

    event: Mapping[str, Any]
    reports: tuple[Mapping[str, Any], ...]


class Inquiries:
    """Reads, and changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def standing(self) -> Standing:
        """Count everything.

        Raises:
            DatabaseUnavailableError: it can't be asked.
        """
        events = await self._database.run(lambda c: c.execute(EVENTS))
        reports = await self._database.run(lambda c: c.execute(REPORTS))
        return Standing(
            tuple(Tally(row.state, None, row.number, None, row.oldest) for row in events),
            tuple(
                Tally(row.state, row.meter, row.number, row.value, row.oldest) for row in reports
            ),
        )

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
        self, before: datetime, *, after: UUID = FIRST_ID, most: int = 100
    ) -> Sequence[UsageRecorded]:
        """Return reports forwarded ``before`` and never answered, in the order of their ids.

        Raises:
            DatabaseUnavailableError: it can't be asked.
        """
        values = {"before": before, "after": after, "most": most}
        rows = await self._database.run(lambda c: c.execute(UNANSWERED, values))
        return [recorded_report(row._asdict()) for row in rows]
