"""The commands for operators: create the meters, list the calls for a restored ledger."""

import argparse
import sys
from contextlib import aclosing
from typing import Final

from nexus_contracts import CallRecord, CallRecordsEnd, UsageRecorded
from nexus_database import (
    Database,
    DatabaseUnavailableError,
    MigrationError,
    UnfitDatabaseError,
)
from nexus_database.settings import DatabaseSettings
from nexus_service.command import FAILED, SUCCESS
from nexus_service.console import Finding, Tone, rfc_3339, show_findings, show_json, show_line
from stripe_reporter.fence import Entry
from stripe_reporter.reports import Report
from stripe_reporter.settings import StripeSettings
from stripe_reporter.storage.journal import Journal
from stripe_reporter.stripe.checks import ensure_meters

FAULTS: Final = (MigrationError, UnfitDatabaseError, DatabaseUnavailableError)
"""What any command may raise; each text says what to do."""

PROGRESS_EVERY: Final = 10_000
"""Lines of the list between two notes on stderr."""


async def ensure(settings: StripeSettings, _parsed: argparse.Namespace) -> int:
    """Create the meters that Stripe lacks; fail if any is wrong."""
    faults = await ensure_meters(settings)
    show_findings(
        Finding(f"meter {name}") if fault is None else Finding(f"meter {name}", fault, Tone.BAD)
        for name, fault in faults.items()
    )
    return FAILED if any(faults.values()) else SUCCESS


async def list_calls(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    """List every report called or rejected since a time; fail if one lacks its claim."""
    listed = without_claim = 0
    url = settings.database_url.get_secret_value()
    async with (
        Database(url, name="stripe-reporter command") as database,
        aclosing(Journal(database).calls_since(parsed.since)) as calls,
    ):
        async for report, entry in calls:
            record = call_record(report, entry)
            if record is None:
                without_claim += 1
                continue
            show_json(record.model_dump(mode="json"))
            listed += 1
            if listed % PROGRESS_EVERY == 0:
                _note(f"{listed} reports, up to {rfc_3339(record.started_at)}")
    show_json(CallRecordsEnd(records=listed, since=parsed.since).model_dump(mode="json"))
    _note(f"{listed} reports since {rfc_3339(parsed.since)}")
    if without_claim:
        _note(f"{without_claim} more came without their claim, from an older release")
    return FAILED if without_claim else SUCCESS


def call_record(report: Report, entry: Entry) -> CallRecord | None:
    """Return what the ledger needs of a report, or None if its event came without its claim."""
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
        late=report.late,
    )
    return CallRecord(
        report=recorded,
        state=entry.state.value,
        started_at=entry.started_at,
        answered_at=entry.answered_at,
        reason=entry.reason,
        ever_unknown=entry.ever_unknown,
        rejected_later=entry.rejected_later,
    )


def _note(line: str) -> None:
    show_line(line, stream=sys.stderr)
