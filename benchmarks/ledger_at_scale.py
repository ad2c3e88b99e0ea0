"""What does a large ledger cost: its events, its periodic queries, those of operators?

Two ledgers, a small one and a large one, each on a PostgreSQL of its own (``filled_ledger.py``).
They take turns at recording, claiming, forwarding and answers, through the service's own code:
printed is the processor time of Python and of PostgreSQL for each event. Then each query runs on
the large one under EXPLAIN ANALYZE.
"""

import argparse
import asyncio
import hashlib
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy import TextClause, text

from filled_ledger import ACCOUNTS, FilledLedger, IdVersion, filled_ledger
from nexus_database import Database
from support.events import tool_run
from support.processor_time import processor_seconds
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules
from usage_ingest.status import MAX_COUNTED, MAX_REPORTED, MAX_SUMMED
from usage_ingest.storage.accounts import (
    EXPIRE,
    MARK_ACCOUNTS,
    MAX_ACCOUNTS,
    MAX_SWEPT,
    OPEN_SINCE,
    RELEASE,
    SUPERSEDE,
)
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.figures import MEASURE
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.reader import BEGINNING, CLAIM, EVENT, FIRST_ID, UNANSWERED
from usage_ingest.storage.reports import ReportAnswer, Reports
from usage_ingest.storage.status import EVENTS, NEWEST, REPORTED, REPORTS

TIME_ORDERED: Final = 7

SMALL: Final = 100_000
BATCH: Final = 500
BATCHES: Final = 20
RULES: Final = BillingRules("tool_call_executed", None, frozenset({"succeeded"}))
STEPS: Final = ("record", "claim", "forward", "answer")

CLEAN: Final = (
    "ALTER SYSTEM SET autovacuum = off",
    "SELECT pg_reload_conf()",
    "UPDATE usage_events SET billing_state = 'expired' WHERE billing_state = 'due'",
    "UPDATE usage_reports SET state = 'forwarded' WHERE state = 'pending'",
    "VACUUM usage_events",
    "VACUUM usage_reports",
    "CHECKPOINT",
)
"""So that what is measured moves this run's events alone, and nothing else runs beside it."""


@dataclass
class Turns:
    """A ledger's processor microseconds for an event, of Python and PostgreSQL, turn by turn."""

    ledger: FilledLedger
    costs: dict[str, list[tuple[float, float]]] = field(
        default_factory=lambda: {step: [] for step in STEPS}
    )

    async def measure(self, step: str, work: Callable[[], Awaitable[int]]) -> None:
        """Note what ``work`` takes; it returns the number of events or reports that it moved."""
        pids = self.ledger.server.pids.values()
        before = time.process_time(), processor_seconds(*pids)
        number = await work()
        python, postgres = time.process_time() - before[0], processor_seconds(*pids) - before[1]
        self.costs[step].append((python * 1e6 / number, postgres * 1e6 / number))

    async def turn(self, ids: IdVersion) -> None:
        """Move the same number of new runs through the ledger."""
        database, now = self.ledger.database, datetime.now(UTC)
        reports = Reports(database)
        claims = Claims(database, window=timedelta(seconds=10), dimensions=())
        batches = [[_entry(ids, now) for _ in range(BATCH)] for _ in range(BATCHES)]
        leased: list[UUID] = []

        async def record() -> int:
            for batch in batches:
                await Ledger(database).record(batch)
            return BATCH * BATCHES

        async def claim() -> int:
            return (await claims.claim(now + timedelta(minutes=1))).events

        async def forward() -> int:
            while found := [each.report_id for each in (await reports.lease(now)).reports]:
                await reports.settle_lease(now, forwarded=found, failed=[])
                leased.extend(found)
            return len(leased)

        async def answer() -> int:
            for first in range(0, len(leased), BATCH):
                await reports.answer(
                    [
                        ReportAnswer(each, "reported", now, None, ever_unknown=False)
                        for each in leased[first : first + BATCH]
                    ]
                )
            return len(leased)

        for step, work in zip(STEPS, (record, claim, forward, answer), strict=True):
            await self.measure(step, work)

    def median(self, step: str) -> tuple[float, float]:
        """Return the median of a step, after the first turn."""
        python, postgres = zip(*self.costs[step][1:], strict=True)
        return statistics.median(python), statistics.median(postgres)


def _entry(ids: IdVersion, now: datetime) -> Entry:
    user = UUID(hashlib.md5(f"user{secrets.randbelow(ACCOUNTS)}".encode()).hexdigest())  # noqa: S324
    random = uuid4()
    if ids == TIME_ORDERED:
        stamp = int(time.time() * 1000) << 80
        random = UUID(int=stamp | (random.int & ((1 << 80) - 1)) & ~(0xF << 76) | 7 << 76)
    return Entry.of(tool_run(user, event_id=random, time=now), RULES, now)


async def compare(small: FilledLedger, large: FilledLedger, ids: IdVersion, turns: int) -> None:
    """Let both ledgers take turns, and print the medians."""
    compared = [Turns(small), Turns(large)]
    for each in compared:
        session = await asyncpg.connect(each.ledger.superuser_url)
        for statement in CLEAN:
            await session.execute(statement)
        await session.close()
    for _ in range(turns + 1):
        for each in compared:
            await each.turn(ids)
    print(f"version-{ids} ids, µs of Python and PostgreSQL for an event or a report:")
    print(f"| step | {small.rows:,} | {large.rows:,} | ratio |\n|---|---|---|---|")
    for step in STEPS:
        few, many = (each.median(step) for each in compared)
        print(
            f"| {step} | {few[0]:.1f} + {few[1]:.1f} | {many[0]:.1f} + {many[1]:.1f}"
            f" | {sum(many) / sum(few):.2f} |",
            flush=True,
        )


@dataclass(frozen=True, slots=True)
class Query:
    """A statement with its values, and how often it runs."""

    name: str
    statement: TextClause
    values: Mapping[str, object]
    runs: str


def queries(now: datetime, event_id: UUID, claim_id: UUID) -> Iterator[Query]:
    """Yield the queries of the ledger other than its batches."""
    oldest = {"oldest": now - timedelta(days=35), "most": MAX_SWEPT}
    yield Query("figures for the metrics", MEASURE, {"most": MAX_COUNTED}, "every 10 s")
    accounts = {"accounts": MAX_ACCOUNTS}
    yield Query("sweep: release", RELEASE, {**accounts, "most": MAX_SWEPT}, "every 3 s")
    yield Query("sweep: open since", OPEN_SINCE, {}, "every 3 s")
    yield Query("sweep: mark accounts", MARK_ACCOUNTS, {**accounts, "open_since": now}, "every 3 s")
    yield Query("sweep: expire", EXPIRE, oldest, "every 3 s")
    yield Query("sweep: supersede", SUPERSEDE, oldest, "every 3 s")
    summed, day = {"most": MAX_SUMMED}, {"since": now - timedelta(days=1)}
    yield Query("status: events", EVENTS, summed, "by an operator")
    yield Query("status: reports", REPORTS, summed, "by an operator")
    yield Query("status: reported", REPORTED, {**day, "most": MAX_REPORTED}, "by an operator")
    yield Query("status: newest", NEWEST, {}, "by an operator")
    yield Query("explain: event", EVENT, {"event_id": event_id}, "by an operator")
    yield Query(
        "explain: reports", CLAIM, {"claim_id": claim_id, "late_claim_id": None}, "by an operator"
    )
    page = {"before": now, "created_at": BEGINNING, "report_id": FIRST_ID, "most": 100}
    yield Query("replay: a page", UNANSWERED, page, "by an operator")
    for days in (1, 7, 3650):
        since = {"since": now - timedelta(days=days), "most": None}
        yield Query(f"status --days {days}", REPORTED, since, "asked to read all")


async def plan(database: Database, query: Query) -> dict[str, Any]:
    """Run a statement under EXPLAIN ANALYZE, undo it, and return its plan."""
    options = "ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON"
    explained = text(f"EXPLAIN ({options}) {query.statement.text}")
    async with database.engine.connect() as connection:
        found = (await connection.execute(explained, dict(query.values))).scalar_one()
        await connection.rollback()
    explained_plan: dict[str, Any] = (json.loads(found) if isinstance(found, str) else found)[0]
    return explained_plan


def scans(node: Mapping[str, Any]) -> set[str]:
    """Return the scans of a plan."""
    own = {f"{node['Node Type']} {node.get('Index Name', node.get('Relation Name', ''))}".strip()}
    parts = [scans(each) for each in node.get("Plans", ())]
    return (own if "Scan" in node["Node Type"] else set()).union(*parts)


async def ask(database: Database, rows: int) -> None:
    """Run every query six times and print its cost: first, and the median of the others."""
    newest = text("SELECT event_id, claim_id FROM usage_events WHERE claim_id IS NOT NULL LIMIT 1")
    claimed = (await database.run(lambda c: c.execute(newest))).one()
    print(f"{rows:,} events; load average {os.getloadavg()[0]:.1f}")
    print("| query | runs | first | again | pages | read by |\n|---|---|---|---|---|---|")
    for query in queries(datetime.now(UTC), claimed.event_id, claimed.claim_id):
        plans = [await plan(database, query) for _ in range(6)]
        first, *again = [each["Planning Time"] + each["Execution Time"] for each in plans]
        last = plans[-1]["Plan"]
        print(
            f"| {query.name} | {query.runs} | {first:.1f} ms | {statistics.median(again):.1f} ms"
            f" | {last['Shared Hit Blocks'] + last['Shared Read Blocks']:,}"
            f" | {', '.join(sorted(scans(last)))} |",
            flush=True,
        )


async def main() -> int:
    """Start the servers, fill what is not there, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="events (10,000,000)")
    parser.add_argument("--ids", type=int, choices=(4, 7), default=7, help="UUID version (7)")
    parser.add_argument("--turns", type=int, default=5, help="of each ledger (5)")
    kept = "a folder that keeps the ledgers, as the runs before have left them"
    parser.add_argument("--data", type=Path, help=kept)
    options = parser.parse_args()
    async with AsyncExitStack() as stack:
        directory = options.data or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        began = time.monotonic()
        small, large = [
            await stack.enter_async_context(filled_ledger(directory, rows, options.ids))
            for rows in (SMALL, options.rows)
        ]
        print(f"filled in {time.monotonic() - began:.0f} s", file=sys.stderr)
        await ask(large.database, large.rows)
        await compare(small, large, options.ids, options.turns)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
