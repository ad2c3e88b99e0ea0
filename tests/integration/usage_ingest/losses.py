"""A ledger that is lost and restored from a backup, and the journal that knows more than it."""

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
from nexus_contracts import CallRecord, CallRecordsEnd
from nexus_database import Database
from rig.backup import back_up, restore
from rig.events import provisioned
from usage_ingest.accounts import Accounts
from usage_ingest.claims import Claims
from usage_ingest.ledger import Entry, Ledger
from usage_ingest.metering import BillingRules, ToolRun
from usage_ingest.reports import recorded_report

RUNS, TOKENS = "tool_call_executed", "tokens_used"
RULES = BillingRules(RUNS, TOKENS, frozenset({"succeeded"}))
MINUTE = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=10)
LATER = MINUTE + timedelta(minutes=5)

REPORTS = """
SELECT report_id, identifier, meter, value, stripe_customer_id, dimensions, occurred_at,
       event_count, claim_id
  FROM usage_reports ORDER BY created_at, report_id
"""

# What is wrong with promise 3, for each claim and meter: in the reports and in the events.
DISAGREEING = """
SELECT r.claim_id, r.meter, r.value, sum((e.readings ->> r.meter)::bigint)
  FROM usage_reports r
  LEFT JOIN usage_events e ON e.claim_id = r.claim_id AND e.readings ? r.meter
 WHERE r.state <> 'superseded'
 GROUP BY r.report_id
HAVING count(e.event_id) <> r.event_count
"""


@dataclass
class Loss:
    """One ledger and its backup; ``word`` is what the journal says of a report if not accepted."""

    postgres: PostgresServer
    url: str
    directory: Path
    window: int = 10
    dimensions: tuple[str, ...] = ()
    word: dict[UUID, dict[str, Any]] = field(default_factory=dict)
    database: Database = field(init=False)

    def __post_init__(self) -> None:
        self.database = Database(self.url, name="test")

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query."""
        return [tuple(row) for row in await self.database.run(lambda c: c.execute(text(query)))]

    async def know(self, user: UUID, customer: str, generation: int = 1) -> None:
        """Let a customer be announced."""
        await Accounts(self.database).apply(provisioned(user, customer, generation).data)

    async def record(self, *runs: ToolRun) -> None:
        """Record runs, as if published now, for the first time or again."""
        now = datetime.now(UTC)
        await Ledger(self.database).record([Entry.of(each, RULES, now) for each in runs])

    async def claim(self) -> int:
        """Claim all that is due, and return how many events that were."""
        claims = Claims(
            self.database, window=timedelta(seconds=self.window), dimensions=self.dimensions
        )
        return (await claims.claim(LATER)).events

    async def sweep(self) -> int:
        """Sweep once, and return how many reports were superseded."""
        return (await Accounts(self.database).sweep(datetime.now(UTC))).superseded

    def back_up(self) -> None:
        """Take the backup."""
        back_up(self.postgres, self.url, self.directory / "backup")

    async def lose(self) -> str:
        """Lose the ledger to the backup, and return the list of calls that the journal has."""
        told = await self.told()
        await self.database.close()
        restore(self.postgres, self.url, self.directory / "backup")
        self.database = Database(self.url, name="test")
        return told

    async def told(self) -> str:
        """Return the list of calls of all reports that there are now."""
        found = await self.database.run(lambda c: c.execute(text(REPORTS)))
        records = [self._record(row._asdict()) for row in found]
        end = CallRecordsEnd(records=len(records), since=MINUTE)
        return "\n".join(each.model_dump_json() for each in (*records, end)) + "\n"

    def _record(self, row: Mapping[str, Any]) -> CallRecord:
        word = {"state": "accepted", "answered_at": LATER, "ever_unknown": False}
        report = recorded_report(dict(row))
        return CallRecord(
            report=report, started_at=LATER, **(word | self.word.get(report.report_id, {}))
        )

    async def adopt(self, told: str, *arguments: str) -> tuple[int, list[str]]:
        """Run `usage-ingest adopt` on a list; return its exit code and lines."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "usage_ingest", "adopt", "-", *arguments),
            env={
                **base_environment(),
                "DATABASE_URL": self.url,
                "REPORT_WINDOW_SECONDS": str(self.window),
            },
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate(told.encode())
        assert process.returncode is not None
        assert b"Traceback" not in errors, errors.decode()
        return process.returncode, output.decode().splitlines()

    async def reports(self) -> Sequence[tuple[Any, ...]]:
        """Return how many reports of each state there are, and of what value, by meter."""
        return await self.rows(
            "SELECT meter, state, count(*), sum(value)::int FROM usage_reports"
            " GROUP BY 1, 2 ORDER BY 1 DESC, 2"
        )
