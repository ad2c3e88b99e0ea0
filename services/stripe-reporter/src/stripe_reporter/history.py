"""The journal told again, call by call, to a ledger that was restored from a backup."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Final

from nexus_contracts import CallRecord, UsageRecorded
from nexus_database import Database
from stripe_reporter import rows
from stripe_reporter.entries import CALL_LIFETIME, Entry
from stripe_reporter.reports import Report

PAGE: Final = 1000


async def history(database: Database, since: datetime) -> AsyncGenerator[CallRecord | None, None]:
    """Yield each report whose last call began or may have been answered since, oldest first.

    A report whose publisher told no claim yields nothing but its place: it can't be told of.

    Raises:
        DatabaseUnavailableError: it can't be read further.
    """
    after = (since - CALL_LIFETIME, "")
    while page := await _page(database, after):
        for report, entry in page:
            yield record_of(report, entry)
        last, entry = page[-1]
        after = (entry.started_at, last.identifier)


async def _page(database: Database, after: tuple[datetime, str]) -> Sequence[tuple[Report, Entry]]:
    return await database.run(lambda connection: rows.begun(connection, after, PAGE))


def record_of(report: Report, entry: Entry) -> CallRecord | None:
    """Return what the ledger needs to know of a report, if enough of it was ever told."""
    if report.claim_id is None or report.event_count is None:
        return None
    recorded = UsageRecorded(
        report_id=report.facts.report_id,
        identifier=report.identifier,
        meter=report.facts.meter,
        value=report.facts.value,
        stripe_customer_id=report.facts.stripe_customer_id,
        dimensions=dict(report.dimensions) or None,
        occurred_at=report.facts.occurred_at,
        event_count=report.event_count,
        claim_id=report.claim_id,
    )
    return CallRecord(
        report=recorded,
        state=entry.state.value,
        started_at=entry.started_at,
        answered_at=entry.answered_at,
        reason=entry.reason,
        ever_unknown=entry.ever_unknown,
    )
