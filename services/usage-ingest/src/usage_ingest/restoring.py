"""`usage-ingest adopt`: a ledger restored from a backup takes back what it lost, and says the rest.

Dry by default. The list of calls is read as it comes and taken back in batches of bounded size.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, TextIO

from pydantic import AfterValidator, BaseModel, SecretStr

from nexus_contracts import CallRecord, CallRecordsEnd, UnreadableError, read_call_record
from nexus_database import Database
from nexus_messaging.command import FAILED, FINE, Command
from usage_ingest.adoptions import Adopted, Adoptions
from usage_ingest.windows import DEFAULT_SECONDS, fits_a_minute

MOST_REPORTS: Final = 500
MOST_EVENTS: Final = 10_000
"""Of a batch, unless a single report has more."""

NAMED: Final = 10
"""How many customers or reports are named; of the others there is the number."""

PROGRESS_EVERY: Final = 20
"""Batches."""


class AdoptSettings(BaseModel):
    """What taking back needs: the window must be the one that the lost reports were made with."""

    database_url: SecretStr
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
    unusable: int = 0
    end: CallRecordsEnd | None = None
    missing: Named = field(default_factory=Named)
    strangers: Named = field(default_factory=Named)
    contradictory: Named = field(default_factory=Named)
    differing: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, adopted: Adopted) -> None:
        """Add a batch."""
        self.known += adopted.known
        self.marked += adopted.marked
        self.put_back += adopted.put_back
        self.claimed += adopted.claimed
        self.overtaken += adopted.overtaken
        self.missing.add(adopted.missing)
        self.strangers.add(adopted.strangers)
        self.contradictory.add(Counter(adopted.contradictory))
        for account, value in adopted.differing.items():
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
        if self.end is None or self.end.records != self.records + self.unusable:
            yield "the list is cut off: have `stripe-reporter journal` write it again"
        if self.unusable:
            yield f"{self.unusable} lines can't be used"
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
        for number, batch in enumerate(_batches(parsed.file, tally), 1):
            tally.add(await adoptions.adopt(batch))
            if number % PROGRESS_EVERY == 0:
                print(tally, file=sys.stderr)
    finally:
        await database.close()
    print(tally if parsed.execute else f"{tally}; nothing was changed: add --execute")
    faults = list(tally.faults())
    for fault in faults:
        print(fault)
    return FAILED if faults else FINE


def _batches(lines: Iterable[str], tally: Tally) -> Iterator[list[CallRecord]]:
    batch: list[CallRecord] = []
    events = 0
    for number, line in enumerate(lines, 1):
        record = _read(line, number, tally)
        if record is None:
            continue
        batch.append(record)
        events += record.report.event_count
        if len(batch) >= MOST_REPORTS or events >= MOST_EVENTS:
            yield batch
            batch, events = [], 0
    if batch:
        yield batch


def _read(line: str, number: int, tally: Tally) -> CallRecord | None:
    try:
        read = read_call_record(line)
    except UnreadableError as error:
        tally.unusable += 1
        if tally.unusable <= NAMED:
            print(f"line {number}: {error}", file=sys.stderr)
        return None
    if isinstance(read, CallRecordsEnd):
        tally.end = read
        return None
    tally.records += 1
    return read


def _lines(written: str) -> TextIO:
    if written == "-":
        return sys.stdin
    try:
        # Closed by the end of the process; what is no text is no record either.
        return Path(written).open(encoding="utf-8", errors="replace")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{written}: {error.strerror}") from None


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=_lines, help="what `stripe-reporter journal` has written; - for standard input"
    )
    parser.add_argument("--execute", action="store_true", help="take back; else only count")


ADOPT: Final = Command(
    "adopt",
    "after a restore: take back from the reporter's journal what the ledger lost; 1 if not all",
    AdoptSettings,
    _adopt,
    _arguments,
)
