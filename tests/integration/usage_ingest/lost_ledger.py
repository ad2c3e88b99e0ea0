"""A ledger that is lost and restored from a backup, and a journal that was not."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text

from local_stack.catalogue import base_environment
from local_stack.servers import Database as PostgresServer
from nexus_contracts import CallRecord, CallRecordsEnd, UserAssigned
from nexus_database import Database
from support.backup import back_up, restore
from support.events import provisioned, tool_run
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules, ToolRun
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.reports import recorded_report

RUNS, TOKENS = "tool_call_executed", "tokens_used"
RULES = BillingRules(RUNS, TOKENS, frozenset({"succeeded"}))
MINUTE = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=10)
LATER = MINUTE + timedelta(minutes=5)
ONE = UUID(int=1)
"""The user of the ledger's first customer."""

REPORTS = """
SELECT report_id, identifier, meter, value, stripe_customer_id, dimensions, occurred_at,
       event_count, claim_id, late
  FROM usage_reports WHERE state <> 'shadow' ORDER BY created_at, report_id
"""

# Reports whose claim has other events than before: by number, user, dimensions or window.
DISAGREEING = text("""
SELECT r.claim_id, r.meter, r.event_count, count(e.event_id)
  FROM usage_reports r
  LEFT JOIN usage_events e ON e.claim_id = r.claim_id AND e.readings ? r.meter
 WHERE r.state <> 'superseded'
 GROUP BY r.report_id
HAVING count(e.event_id) <> r.event_count
    OR bool_or(e.user_id <> r.user_id)
    OR bool_or(NOT jsonb_build_object('server_id', e.server_id, 'tool_name', e.tool_name)
                   @> r.dimensions)
    OR bool_or(date_bin(:window, e.occurred_at, 'epoch')
               <> date_bin(:window, r.occurred_at, 'epoch'))
""")


@dataclass
class LostLedger:
    """A ledger and its backup.

    ``records`` are the fields of the journal's records of reports that were not simply accepted.
    """

    postgres: PostgresServer
    url: str
    directory: Path
    window: int = 10
    dimensions: tuple[str, ...] = ()
    records: dict[UUID, dict[str, Any]] = field(default_factory=dict)
    database: Database = field(init=False)

    def __post_init__(self) -> None:
        self.database = Database(self.url, name="test")

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query."""
        return [tuple(row) for row in await self.database.run(lambda c: c.execute(text(query)))]

    async def disagreeing(self) -> list[tuple[Any, ...]]:
        """Return the reports whose claim has other events than before."""
        window = timedelta(seconds=self.window) or timedelta(microseconds=1)
        found = await self.database.run(lambda c: c.execute(DISAGREEING, {"window": window}))
        return [tuple(row) for row in found]

    async def announce(self, user: UUID, customer: str, generation: int = 1) -> None:
        """Store a customer as if it were announced."""
        await Accounts(self.database).apply(provisioned(user, customer, generation).data)

    async def assign(self, user: UUID, account: UUID, since: datetime, revision: int) -> None:
        """Assign a user as if it were announced."""
        assigned = UserAssigned(user_id=user, account_id=account, since=since, revision=revision)
        await Accounts(self.database).assign(assigned)

    async def record(self, *runs: ToolRun) -> None:
        """Record runs as if they were published now, for the first time or again."""
        now = datetime.now(UTC)
        await Ledger(self.database).record([Entry.of(each, RULES, now) for each in runs])

    async def claim(self, live_from: datetime | None = None) -> int:
        """Claim all due events and return their number."""
        claims = Claims(
            self.database,
            window=timedelta(seconds=self.window),
            dimensions=self.dimensions,
            live_from=live_from,
        )
        return (await claims.claim(LATER)).events

    async def sweep(self) -> int:
        """Sweep once and return how many reports were superseded."""
        return (await Accounts(self.database).sweep(datetime.now(UTC))).superseded

    def back_up(self) -> None:
        """Take the backup."""
        back_up(self.postgres, self.url, self.directory / "backup")

    async def lose(self) -> str:
        """Restore the ledger from the backup, and return the journal's list of calls."""
        calls = await self.calls()
        await self.database.close()
        restore(self.postgres, self.url, self.directory / "backup")
        self.database = Database(self.url, name="test")
        return calls

    async def calls(self) -> str:
        """Return the journal's list of calls, of all reports that there are now and are sent."""
        found = await self.database.run(lambda c: c.execute(text(REPORTS)))
        records = [self._record(row._asdict()) for row in found]
        end = CallRecordsEnd(records=len(records), since=MINUTE)
        return "\n".join(each.model_dump_json() for each in (*records, end)) + "\n"

    def _record(self, row: Mapping[str, Any]) -> CallRecord:
        accepted = {"state": "accepted", "answered_at": LATER, "ever_unknown": False}
        report = recorded_report(dict(row))
        fields = accepted | self.records.get(report.report_id, {})
        return CallRecord(report=report, started_at=LATER, **fields)

    async def adopt(self, calls: str, *arguments: str, **settings: str) -> tuple[int, list[str]]:
        """Run `usage-ingest adopt` on a list; return its exit code and lines."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "usage_ingest", "adopt", "-", *arguments),
            env={
                **base_environment(),
                "DATABASE_URL": self.url,
                "REPORT_WINDOW_SECONDS": str(self.window),
                **settings,
            },
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate(calls.encode())
        assert process.returncode is not None
        assert b"Traceback" not in errors, errors.decode()
        return process.returncode, output.decode().splitlines()

    async def reports(self) -> Sequence[tuple[Any, ...]]:
        """Return how many reports of each state there are, and of what value, by meter."""
        return await self.rows(
            "SELECT meter, state, count(*), sum(value)::int FROM usage_reports"
            " GROUP BY 1, 2 ORDER BY 1 DESC, 2"
        )


def run(second: float, user: UUID = ONE, **data: Any) -> ToolRun:
    """Return a run of the minute."""
    return tool_run(user, time=MINUTE + timedelta(seconds=second), **data)


def output(code: int, counts: str, *faults: str) -> tuple[int, list[str]]:
    """Return exit code and output; ``counts``: reports, known, updated, inserted; events."""
    total, there, updated, inserted, events = counts.split()
    summary = (
        f"{total} reports: {there} were there, {updated} of them brought up to date;"
        f" {inserted} put back; {events} events claimed for them"
    )
    return code, [summary, *faults]
