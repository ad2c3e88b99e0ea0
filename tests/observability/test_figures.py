"""The figures that only SQL can tell: right, and cheap however much there is."""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database
from stripe_reporter.storage.journal import _OLDEST_UNKNOWN
from support.events import provisioned, tool_run
from usage_ingest.entry import Entry
from usage_ingest.jobs import measure
from usage_ingest.metering import BillingRules
from usage_ingest.metrics import IngestMetrics
from usage_ingest.status import MAX_COUNTED, MAX_REPORTED, MAX_SUMMED
from usage_ingest.storage.accounts import (
    EXPIRE,
    MARK_ACCOUNTS,
    MARK_ASSIGNMENTS,
    RELEASE,
    SUPERSEDE,
    Accounts,
)
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.counted import CountedSums
from usage_ingest.storage.figures import MEASURE, Figures
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.reader import BEGINNING, CLAIM, FIRST_ID, UNANSWERED, UNANSWERED_NUMBER
from usage_ingest.storage.reports import Reports
from usage_ingest.storage.status import EVENTS, REPORTED, REPORTS
from usage_ingest.storage.totals import Totals

NOW = datetime.now(UTC)
RULES = BillingRules("tool_call_executed", None, frozenset({"succeeded"}))

TABLES = {
    *("usage_events", "usage_reports", "meter_calls", "billing_accounts"),
    *("account_assignments", "unpriced_runs"),
}
SMALL_INDEXES = {
    "usage_events_waiting_by_time",
    "usage_events_waiting_since",
    "usage_events_due",
    "usage_events_unclaimed",
    "usage_reports_pending",
    "usage_reports_forwarded",
    "usage_reports_rejected",
    "usage_reports_rejected_later",
    "usage_reports_unfinished",
    "meter_calls_open",
    "usage_reports_reported",
    "usage_reports_standing",
    "usage_reports_superseded",
    "billing_accounts_unreleased",
    "billing_accounts_replaced",
    "usage_events_pkey",
    "usage_reports_pkey",
    "billing_accounts_pkey",
    "account_assignments_unreleased",
    "account_assignments_pkey",
    "unpriced_runs_time",
}
"""Partial indexes of what is unfinished, one that is read by time, two by a claim, and the keys of
what is moved."""

Clone = Callable[[str], Awaitable[str]]


async def test_figures_of_the_ledger_are_by_state_with_the_oldest_age(
    clone: Clone,
) -> None:
    """One waiting, one due, one pending and two forwarded, each of another age."""
    database = Database(await clone("usage_ingest"), name="test")
    ledger, accounts, reports = Ledger(database), Accounts(database), Reports(database)
    claims = Claims(database, window=timedelta(0), dimensions=())
    user = uuid4()
    await accounts.apply(provisioned(user, "cus_1").data)

    async def record(count: int, age: timedelta, of: object = user) -> None:
        runs = [tool_run(of, time=NOW - age) for _ in range(count)]  # type: ignore[arg-type]
        await ledger.record([Entry.of(run, RULES, NOW) for run in runs])

    await record(2, timedelta(minutes=3))
    await claims.claim(NOW)
    leased = (await reports.lease(NOW)).reports
    await reports.settle_lease(NOW, forwarded=[each.report_id for each in leased], failed=[])
    await record(1, timedelta(minutes=2))
    await claims.claim(NOW)
    await record(1, timedelta(minutes=1))
    await record(1, timedelta(days=2), uuid4())
    registry = CollectorRegistry()
    metrics = IngestMetrics(registry, meters=RULES.meters)
    later = datetime.now(UTC) + timedelta(minutes=5)

    counted = CountedSums(database, lag=timedelta(hours=1))
    await measure(Figures(database), Totals(database), counted, metrics, now=lambda: later)

    def shown(name: str, state: str) -> float:
        value = registry.get_sample_value(f"usage_ingest_{name}", {"state": state})
        assert value is not None
        return value

    events = {state: shown("events_in_state", state) for state in ("waiting", "due")}
    assert events == {"waiting": 1, "due": 1}
    made = {s: shown("reports_in_state", s) for s in ("pending", "forwarded", "rejected")}
    assert made == {"pending": 1, "forwarded": 2, "rejected": 0}
    waiting = timedelta(seconds=shown("oldest_event_seconds", "waiting"))
    assert waiting == later - (NOW - timedelta(days=2))
    assert 300 <= shown("oldest_report_seconds", "forwarded") < 330
    await database.close()


@pytest.mark.parametrize(
    ("service", "query", "values"),
    [
        ("usage_ingest", MEASURE, {"most": MAX_COUNTED}),
        ("usage_ingest", EXPIRE, {"oldest": NOW, "most": 1000}),
        ("usage_ingest", RELEASE, {"accounts": 1000, "most": 1000}),
        ("usage_ingest", MARK_ACCOUNTS, {"accounts": 1000, "open_since": NOW}),
        ("usage_ingest", MARK_ASSIGNMENTS, {"accounts": 1000, "open_since": NOW}),
        ("usage_ingest", SUPERSEDE, {"oldest": NOW, "most": 1000}),
        ("stripe_reporter", _OLDEST_UNKNOWN, {"lost_before": NOW}),
        ("usage_ingest", EVENTS, {"most": MAX_SUMMED}),
        ("usage_ingest", REPORTS, {"most": MAX_SUMMED}),
        ("usage_ingest", REPORTED, {"since": NOW, "most": MAX_REPORTED}),
        ("usage_ingest", CLAIM, {"claim_id": UUID(int=1), "late_claim_id": UUID(int=2)}),
        ("usage_ingest", UNANSWERED_NUMBER, {"before": NOW}),
        (
            "usage_ingest",
            UNANSWERED,
            {"before": NOW, "created_at": BEGINNING, "report_id": FIRST_ID, "most": 100},
        ),
    ],
    ids=[
        "measure",
        "expire",
        "release",
        "mark accounts",
        "mark assignments",
        "supersede",
        "oldest unknown",
        "status: events",
        "status: reports",
        "status: reported",
        "explain",
        "replay: number",
        "replay: a page",
    ],
)
async def test_recurring_and_operator_queries_read_no_whole_table(
    clone: Clone, service: str, query: TextClause, values: dict[str, object]
) -> None:
    """Each uses an index: in this test a sequential scan has a high cost."""
    database = Database(await clone(service), name="test")

    async def plan(connection: AsyncConnection) -> str:
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        found = await connection.execute(text(f"EXPLAIN {query.text}"), values)
        return "\n".join(found.scalars())

    explained = await database.run(plan)

    used = (
        set(
            re.findall(
                r"(?<!Function )(?<!Subquery )(?<!CTE )Scan(?: Backward)? (?:using|on) (\w+)",
                explained,
            )
        )
        - TABLES
    )
    assert "Seq Scan" not in explained
    assert used
    assert used <= SMALL_INDEXES
    await database.close()
