"""The claim loop on a real PostgreSQL: runs recorded in quick succession are reported together."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from prometheus_client import CollectorRegistry
from sqlalchemy import text

from nexus_database import Database
from rig.events import provisioned, tool_run
from rig.waiting import eventually
from usage_ingest.accounts import Accounts
from usage_ingest.claims import Claims
from usage_ingest.ledger import Entry, Ledger
from usage_ingest.loops import Bell, ClaimLoop
from usage_ingest.metering import BillingRules
from usage_ingest.metrics import IngestMetrics

RULES = BillingRules("tool_call_executed", None, frozenset({"succeeded"}))
BATCHES = 5


async def test_late_runs_of_several_batches_become_one_report(database: Database) -> None:
    """A backlog comes in batch after batch: its windows are not reported once for each of them."""
    now = datetime.now(UTC)
    user, minute = uuid4(), now.replace(second=0, microsecond=0) - timedelta(minutes=5)
    await Accounts(database).apply(provisioned(user, "cus_known").data)
    bell = Bell()
    loop = ClaimLoop(
        Claims(database, window=timedelta(seconds=10), dimensions=()),
        IngestMetrics(CollectorRegistry(), meters=RULES.meters),
        bell,
        now=lambda: datetime.now(UTC),
        wake=Bell(),
    )
    claiming = asyncio.create_task(loop.run())
    try:
        for _ in range(BATCHES):
            await Ledger(database).record([Entry.of(tool_run(user, time=minute), RULES, now)])
            bell.ring()
        reports = await eventually(
            lambda: _reports(database), lambda found: sum(found) == BATCHES, within=20
        )
    finally:
        claiming.cancel()

    assert reports == [BATCHES]


async def _reports(database: Database) -> list[int]:
    query = text("SELECT value FROM usage_reports ORDER BY created_at")
    return [row.value for row in await database.run(lambda c: c.execute(query))]
