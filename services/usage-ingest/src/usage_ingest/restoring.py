"""`usage-ingest adopt`: a ledger restored from a backup takes back what it lost, and says the rest.

Dry by default. The list of calls is read twice, in batches of bounded size: for all reports first,
then for their events.
"""

import argparse
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Annotated, Final, TextIO

from pydantic import AfterValidator

from nexus_contracts import CallRecord, CallRecordsEnd, UnreadableError, read_call_record
from nexus_database import Database
from nexus_database.settings import DatabaseSettings
from nexus_service.command import FAILED, FINE, Command
from nexus_service.console import Tone, rfc_3339, show_line
from usage_ingest.adoptions import Adoptions, Matched, Returned
from usage_ingest.windows import DEFAULT_SECONDS, fits_a_minute

MOST_REPORTS: Final = 500
MOST_EVENTS: Final = 10_000
"""Of a batch, unless a single report has more."""

NAMED: Final = 10
"""How many customers or reports are named; of the others there is the number."""

PROGRESS_EVERY: Final = 10_000


class AdoptSettings(DatabaseSettings):
    """What taking back needs: the window must be the one that the lost reports were made with."""

    report_window_seconds: Annotated[int, AfterValidator(fits_a_minute)] = DEFAULT_SECONDS


@dataclass(slots=True)
class Named:
    """A sum, and the parts of the first few that it is of."""

    total: int = 0
    parts: Counter[str] = field(default_factory=Counter)

    def add(self, parts: Mapping[str, int]) -> None:
        """Add what is of each name."""
        for name, count in parts.items():
            self.total += count
            if name in self.parts or len(self.parts) < NAMED:
                self.parts[name] += count

    def __str__(self) -> str:
        """Return the sum, and whose it is."""
        names = ", ".join(f"{name} {count}" for name, count in self.parts.items())
        return f"{self.total} ({names}{', …' if self.total > self.parts.total() else ''})"


@dataclass(slots=True)
class Tally:
    """All that was read and done so far."""

    records: int = 0
    known: int = 0
    marked: int = 0
    put_back: int = 0
    claimed: int = 0
    overtaken: int = 0
    unreadable: int = 0
    end: CallRecordsEnd | None = None
    missing: Named = field(default_factory=Named)
    strangers: Named = field(default_factory=Named)
    contradictory: Named = field(default_factory=Named)
    differing: Counter[tuple[str, str]] = field(default_factory=Counter)

    def read(self, line: CallRecord | CallRecordsEnd) -> None:
        """Count a line."""
        if isinstance(line, CallRecordsEnd):
            self.end = line
        else:
            self.records += 1

    def unusable(self, number: int, error: UnreadableError) -> None:
        """Count a line that is none, and tell of the first few."""
        self.unreadable += 1
        if self.unreadable <= NAMED:
            show_line(f"line {number}: {error}", stream=sys.stderr)

    def returned(self, batch: Returned) -> None:
        """Add what became of a batch of reports."""
        self.known += batch.known
        self.marked += batch.marked
        self.put_back += batch.put_back
        self.strangers.add(batch.strangers)
        self.contradictory.add(Counter(batch.contradictory))

    def matched(self, batch: Matched) -> None:
        """Add what became of a batch's events."""
        self.claimed += batch.claimed
        self.overtaken += batch.overtaken
        self.missing.add(batch.missing)
        for account, value in batch.differing.items():
            self.differing[account] += value
            if not self.differing[account]:
                del self.differing[account]

    def __str__(self) -> str:
        """Return what was read and done."""
        return (
            f"{self.records} reports: {self.known} were there, {self.marked} of them brought up to"
            f" date; {self.put_back} put back; {self.claimed} events claimed for them"
        )

    def faults(self) -> Iterator[str]:
        """Yield what is not as it was before the loss, and what helps."""
        if self.end is None or self.end.records != self.records + self.unreadable:
            yield "the list is cut off: have `stripe-reporter journal` write it again"
        if self.unreadable:
            yield f"{self.unreadable} lines can't be used"
        if self.strangers.total:
            yield f"reports of customers that are not known yet: {self.strangers}"
        if self.missing.total:
            yield f"events missing, to be published again: {self.missing}"
        if self.overtaken:
            yield f"{self.overtaken} events were claimed by a service that is not paused"
        if self.contradictory.total:
            yield f"reports that the ledger has otherwise: {self.contradictory}"
        yield from self._differences()

    def _differences(self) -> Iterator[str]:
        for (customer, meter), value in self.differing.most_common()[:NAMED]:
            yield f"{customer} {meter}: reported {value:+} beside what the claimed events read"
        if len(self.differing) > NAMED:
            yield f"… and {len(self.differing) - NAMED} more of these"


async def _adopt(settings: AdoptSettings, parsed: argparse.Namespace) -> int:
    window = timedelta(seconds=settings.report_window_seconds)
    database = Database(settings.database_url.get_secret_value(), name="usage-ingest adopt")
    adoptions = Adoptions(database, window=window, execute=parsed.execute)
    tally = Tally()
    try:
        for batch in _batches(_told(parsed.file, tally)):
            tally.returned(await adoptions.put_back(batch))
        parsed.file.seek(0)
        for batch in _batches(_told(parsed.file, None)):
            tally.matched(await adoptions.match(batch))
    finally:
        await database.close()
    show_line(str(tally) if parsed.execute else f"{tally}; nothing was changed: add --execute")
    faults = list(tally.faults())
    for fault in faults:
        show_line(fault, Tone.BAD)
    return FAILED if faults else FINE


def _batches(records: Iterable[CallRecord]) -> Iterator[list[CallRecord]]:
    batch: list[CallRecord] = []
    events = 0
    for number, record in enumerate(records, 1):
        batch.append(record)
        events += record.report.event_count
        if len(batch) >= MOST_REPORTS or events >= MOST_EVENTS:
            yield batch
            batch, events = [], 0
        if number % PROGRESS_EVERY == 0:
            progress = f"{number} reports, up to {rfc_3339(record.started_at)}"
            show_line(progress, stream=sys.stderr)
    if batch:
        yield batch


def _told(lines: Iterable[str], tally: Tally | None) -> Iterator[CallRecord]:
    for number, line in enumerate(lines, 1):
        try:
            read = read_call_record(line)
        except UnreadableError as error:
            if tally is not None:
                tally.unusable(number, error)
            continue
        if isinstance(read, CallRecord):
            yield read
        if tally is not None:
            tally.read(read)


def _rereadable(written: str) -> TextIO:
    """Open the list so that it can be read twice, without holding it in memory."""
    try:
        if written != "-":
            raw: IO[bytes] = Path(written).open("rb")  # noqa: SIM115 - read by the command
        elif sys.stdin is None:
            raise argparse.ArgumentTypeError("standard input is closed: name a file")
        else:
            # Read twice by the command, and gone with its process.
            raw = TemporaryFile()  # noqa: SIM115 - likewise
            shutil.copyfileobj(sys.stdin.buffer, raw)
            raw.seek(0)
        raw.readline().decode()
        raw.seek(0)
        # Of a list, a line that is no text counts as any other that can't be used.
        return TextIOWrapper(raw, encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{written} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(f"{written} is not in UTF-8") from None


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=_rereadable,
        help="what `stripe-reporter journal` has written; - for standard input",
    )
    parser.add_argument("--execute", action="store_true", help="take back; else only count")


ADOPT: Final = Command(
    "adopt",
    "after a restore: take back from the reporter's journal what the ledger lost; 1 if not all",
    AdoptSettings,
    _adopt,
    _arguments,
    ("{} calls.jsonl", "{} calls.jsonl --execute"),
)
