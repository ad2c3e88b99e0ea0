"""`usage-ingest adopt`: completes a restored ledger from the journal, and says what is missing.

Without ``--execute`` it changes nothing. The journal's list is read in batches of bounded size:
first to restore all reports, then to claim their events, then to claim for what still lacks events
those that a later assignment gave to another account.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from typing_extensions import override

from nexus_contracts import CallRecord, CallRecordsEnd, UnreadableError, read_call_record
from nexus_database import Database
from nexus_messaging.clock import utc_now
from nexus_service.command import FAILED, SUCCESS
from nexus_service.console import Tone, rfc_3339, show_line
from usage_ingest.recovery.events import Differences
from usage_ingest.recovery.storage import ClaimedEvents, Recovery, RestoredReports
from usage_ingest.settings import AdoptSettings
from usage_ingest.storage.late import LateReadings

MAX_REPORTS: Final = 500
"""Reports of one batch."""

MAX_EVENTS: Final = 10_000
"""Events of one batch, unless a single report has more."""

NAMED: Final = 10
"""How many customers, reports or lines are named; the others are only counted."""

PROGRESS_EVERY: Final = 10_000
"""Reports between two lines that say how far the command is."""


@dataclass(slots=True)
class NamedCount:
    """A total, and the parts of the first few names."""

    total: int = 0
    parts: Counter[str] = field(default_factory=Counter)

    def add(self, parts: Mapping[str, int]) -> None:
        """Add the counts of some names."""
        for name, count in parts.items():
            self.total += count
            if name in self.parts or len(self.parts) < NAMED:
                self.parts[name] += count

    @override
    def __str__(self) -> str:
        """Return the total and the parts."""
        names = ", ".join(f"{name} {count}" for name, count in self.parts.items())
        return f"{self.total} ({names}{', …' if self.total > self.parts.total() else ''})"


@dataclass(slots=True)
class Summary:
    """What the command has read and done so far."""

    records: int = 0
    known: int = 0
    updated: int = 0
    inserted: int = 0
    claimed: int = 0
    overtaken: int = 0
    unusable: int = 0
    end: CallRecordsEnd | None = None
    missing: NamedCount = field(default_factory=NamedCount)
    unknown_customers: NamedCount = field(default_factory=NamedCount)
    conflicts: NamedCount = field(default_factory=NamedCount)
    unknown_tools: NamedCount = field(default_factory=NamedCount)
    differences: Differences = field(default_factory=Differences)

    def add_line(self, line: CallRecord | CallRecordsEnd) -> None:
        """Count a line of the list."""
        if isinstance(line, CallRecordsEnd):
            self.end = line
        else:
            self.records += 1

    def add_unusable(self, number: int, error: UnreadableError) -> None:
        """Count a line that can't be used, and show the first few."""
        self.unusable += 1
        if self.unusable <= NAMED:
            show_line(f"line {number}: {error}", stream=sys.stderr)

    def add_reports(self, batch: RestoredReports) -> None:
        """Add what was done with a batch of reports."""
        self.known += batch.known
        self.updated += batch.updated
        self.inserted += batch.inserted
        self.unknown_customers.add(batch.unknown_customers)
        self.conflicts.add(Counter(batch.conflicts))

    def look_again(self) -> None:
        """Forget what is missing and what differs: all claims are gone through again."""
        self.missing, self.unknown_tools = NamedCount(), NamedCount()
        self.differences = Differences()

    def add_events(self, batch: ClaimedEvents) -> None:
        """Add what was done with a batch's events."""
        self.claimed += batch.claimed
        self.overtaken += batch.overtaken
        self.missing.add(batch.missing)
        self.unknown_tools.add(batch.unknown_tools)
        self.differences.add(batch.differences)

    @override
    def __str__(self) -> str:
        """Return what was read and done."""
        return (
            f"{self.records} reports: {self.known} were there, {self.updated} of them brought up to"
            f" date; {self.inserted} put back; {self.claimed} events claimed for them"
        )

    def faults(self) -> Iterator[str]:
        """Yield what is not as it was before the loss."""
        if self.end is None or self.end.records != self.records + self.unusable:
            yield "the list is cut off: have `stripe-reporter journal` write it again"
        if self.unusable:
            yield f"{self.unusable} lines can't be used"
        if self.unknown_customers.total:
            yield f"reports of customers that are not known yet: {self.unknown_customers}"
        if self.missing.total:
            yield f"events missing, to be published again: {self.missing}"
        if self.unknown_tools.total:
            yield f"tools charged by a first use that is not back: {self.unknown_tools}"
        if self.overtaken:
            yield f"{self.overtaken} events were claimed by a service that is not paused"
        if self.conflicts.total:
            yield f"reports that contradict the ledger: {self.conflicts}"
        different = self.differences.named()
        for (customer, meter), value in different[:NAMED]:
            yield f"{customer} {meter}: reported {value:+} beside what the claimed events read"
        if len(different) > NAMED:
            yield f"… and {len(different) - NAMED} more of these"


async def adopt(settings: AdoptSettings, parsed: argparse.Namespace) -> int:
    """Complete a restored ledger; fail if anything is missing or cannot be used."""
    window = timedelta(seconds=settings.report_window_seconds)
    url = settings.database_url.get_secret_value()
    summary = Summary()
    async with Database(url, name="usage-ingest adopt") as database:
        plans = settings.plans_file
        recovery = Recovery(
            database,
            window=window,
            execute=parsed.execute,
            charges={} if plans is None else plans.charges(),
            counting=settings.counting_keys(),
            unique_meters={} if plans is None else plans.unique_tools_meters(),
            live_from=settings.reporting_live_from,
        )
        if lost := await recovery.lost_routes(settings.routes()):
            # Their runs could not be found for the reports that they are in.
            named = ", ".join(lost)
            show_line(f"PLANS_FILE lacks routes of runs: {named}; nothing was changed", Tone.BAD)
            return FAILED
        for batch in _batches(_records(parsed.file, summary)):
            summary.add_reports(await recovery.restore_reports(batch))
        if plans is not None and parsed.execute:
            # What can be priced now was perhaps priced before: its reading is a late report's.
            late = LateReadings(database, plans)
            while (await late.price(utc_now())).more:
                pass
        # What is not executed is not seen by the next round, and would be counted again.
        rounds = (False, True) if parsed.execute else (True,)
        for overruled in () if parsed.reports_only else rounds:
            parsed.file.seek(0)
            summary.look_again()
            for batch in _batches(_records(parsed.file)):
                summary.add_events(await recovery.claim_events(batch, overruled=overruled))
    show_line(str(summary) if parsed.execute else f"{summary}; nothing was changed: add --execute")
    faults = list(summary.faults())
    for fault in faults:
        show_line(fault, Tone.BAD)
    return FAILED if faults else SUCCESS


def _batches(records: Iterable[CallRecord]) -> Iterator[list[CallRecord]]:
    batch: list[CallRecord] = []
    events = 0
    for number, record in enumerate(records, 1):
        batch.append(record)
        events += record.report.event_count
        if len(batch) >= MAX_REPORTS or events >= MAX_EVENTS:
            yield batch
            batch, events = [], 0
        if number % PROGRESS_EVERY == 0:
            progress = f"{number} reports, up to {rfc_3339(record.started_at)}"
            show_line(progress, stream=sys.stderr)
    if batch:
        yield batch


def _records(lines: Iterable[str], summary: Summary | None = None) -> Iterator[CallRecord]:
    """Yield the records of a list, and count its lines in ``summary``."""
    for number, line in enumerate(lines, 1):
        try:
            read = read_call_record(line)
        except UnreadableError as error:
            if summary is not None:
                summary.add_unusable(number, error)
            continue
        if summary is not None:
            summary.add_line(read)
        if isinstance(read, CallRecord):
            yield read
