"""Reports of a ledger, as tests make, read and answer them."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from nexus_contracts import UsageRecorded
from nexus_database import Database
from support.events import provisioned, tool_run
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.reports import ReportAnswer

RULES = BillingRules("tool_call_executed", None, frozenset({"succeeded"}))
NOW = datetime.now(UTC)


async def pending(database: Database, user: UUID, reports: int = 1) -> None:
    """Make ``reports`` pending reports of ``user``."""
    await Accounts(database).apply(provisioned(user, "cus_first").data)
    events = [tool_run(user, time=NOW - timedelta(minutes=1)) for _ in range(reports)]
    await Ledger(database).record([Entry.of(each, RULES, NOW) for each in events])
    await Claims(database, window=timedelta(0), dimensions=()).claim(NOW)


async def states(database: Database) -> list[str]:
    """Return the states of all reports, oldest first."""
    query = text("SELECT state FROM usage_reports ORDER BY created_at, state")
    return list((await database.run(lambda c: c.execute(query))).scalars())


def answer(report: UsageRecorded, state: str, *, unknown: bool = False) -> ReportAnswer:
    """Return the reporter's answer to ``report``."""
    reason = "no_such_customer" if state == "rejected" else None
    return ReportAnswer(report.report_id, state, NOW, reason, unknown)
