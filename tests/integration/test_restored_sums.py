"""What the runbook has an operator do for Stripe's later word, after a database was restored."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import text

from integration.usage_ingest.sums import METER, known, report
from nexus_database import Database
from stripe_reporter.rejections import Rejection
from stripe_reporter.storage.rejections import Rejections
from stripe_reporter.storage.summaries import Summaries
from support.pages import runbook_statement

NOW: Final = datetime.now(UTC)
HOUR: Final = timedelta(hours=1)
SINCE: Final = (NOW - 3 * HOUR).isoformat()

IDENTIFIERS: Final = "SELECT identifier FROM usage_reports"


@pytest.fixture
async def ledger(clone: Callable[[str], Awaitable[str]]) -> AsyncIterator[Database]:
    """Return the ledger, as usage-ingest's role."""
    async with Database(await clone("usage_ingest"), name="test") as opened:
        yield opened


@pytest.fixture
async def journal(clone: Callable[[str], Awaitable[str]]) -> AsyncIterator[Database]:
    """Return the journal, as stripe-reporter's role."""
    async with Database(await clone("stripe_reporter"), name="test") as opened:
        yield opened


async def run(database: Database, statement: str) -> Sequence[Any]:
    """Run a statement as it stands; return its rows, if it has any."""
    escaped = text(statement.replace(":", "\\:"))
    found = await database.run(lambda c: c.execute(escaped))
    return found.all() if found.returns_rows else []


def by_runbook(begin: str, **given: str) -> str:
    """Return a statement of the runbook with what an operator writes into it."""
    statement = runbook_statement(begin)
    for name, value in {"SINCE": SINCE, **given}.items():
        statement = statement.replace(name, value)
    return statement


async def test_sums_of_reports_that_the_journal_lost_are_read(
    ledger: Database, journal: Database
) -> None:
    """The ledger prints what the journal needs: by customer, from its oldest hour on."""
    account = await known(ledger)
    old = NOW - 20 * 24 * HOUR
    for occurred in (NOW - HOUR, old):
        await report(ledger, account, "cus_1", 5, at=occurred, answered_at=NOW - HOUR)
    await report(ledger, account, "cus_1", 7, at=NOW, state="pending")
    await report(ledger, await known(ledger, 2), "cus_2", 3, answered_at=NOW - 90 * HOUR)

    printed = await run(ledger, by_runbook("SELECT format('INSERT INTO summaries_due"))
    for [line] in (*printed, *printed):
        await run(journal, line)

    [pair] = await Summaries(journal, lag=HOUR).lease(datetime.now(UTC), 10)
    assert (pair.stripe_customer_id, pair.meter) == ("cus_1", METER)
    assert (pair.since, pair.active_at) == (old, NOW - HOUR)


async def test_a_rejection_of_a_report_that_the_journal_lost_is_found(
    ledger: Database, journal: Database
) -> None:
    """Nothing judges it: an operator raises the ledger's report, which stays so."""
    await report(ledger, await known(ledger), "cus_1", 5, answered_at=NOW - HOUR)
    [[identifier]] = await run(ledger, IDENTIFIERS)
    rejections = Rejections(journal)
    await rejections.keep([Rejection(identifier, 1, "no_meter")], NOW)
    assert await rejections.judge(NOW) == []
    assert await rejections.unannounced() == []

    [found] = await run(journal, by_runbook("SELECT identifier, key_n, code, heard_at"))
    raised = by_runbook(
        "UPDATE usage_reports SET state = 'rejected_later'",
        **{"CODE": found.code, "…": found.identifier},
    )
    await run(ledger, raised)

    rows = await run(ledger, "SELECT state, reason FROM usage_reports")
    assert [tuple(row) for row in rows] == [("rejected_later", "no_meter")]
