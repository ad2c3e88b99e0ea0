"""Rows that another transaction has locked are skipped, and no others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from nexus_database import Database
from support.events import provisioned, tool_run
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.reports import ReportAnswer, Reports

RULES = BillingRules("tool_call_executed", None, frozenset({"succeeded"}))
NOW = datetime.now(UTC)


@asynccontextmanager
async def holding(database: Database, query: str, **values: Any) -> AsyncIterator[None]:
    """Lock the rows that ``query`` selects while the context lasts."""
    async with database.engine.begin() as rival:
        await rival.execute(text(f"{query} FOR UPDATE"), values)
        yield


async def waiting(database: Database, *users: UUID) -> None:
    """Record one waiting run of each user, whose account is known."""
    events = [tool_run(user, time=NOW - timedelta(minutes=1)) for user in users]
    await Ledger(database).record([Entry.of(each, RULES, NOW) for each in events])
    for user in users:
        await Accounts(database).apply(provisioned(user, f"cus_{user.hex}").data, most=0)


async def leased(database: Database, *users: UUID) -> list[UUID]:
    """Make one leased report of each user and return their ids."""
    await waiting(database, *users)
    await Accounts(database).sweep(NOW)
    await Claims(database, window=timedelta(0), dimensions=()).claim(NOW)
    return [each.report_id for each in (await Reports(database).lease(NOW)).reports]


async def test_locked_report_is_skipped_and_others_are_marked(database: Database) -> None:
    """As forwarded or pending; the lease of the locked one runs out."""
    held, sent, unsent = await leased(database, uuid4(), uuid4(), uuid4())
    reports = Reports(database)

    async with holding(database, "SELECT FROM usage_reports WHERE report_id = :held", held=held):
        await reports.settle_lease(NOW, forwarded=[held, sent], failed=[])
        await reports.settle_lease(NOW, forwarded=[], failed=[held, unsent])

    query = text("SELECT report_id, state, leased_until IS NULL FROM usage_reports")
    found = {row[0]: (row[1], row[2]) for row in await database.run(lambda c: c.execute(query))}
    assert found[sent][0] == "forwarded"
    assert found[unsent] == ("pending", True)
    assert found[held] == ("pending", False)


async def test_locked_run_waits_and_others_are_released(database: Database) -> None:
    """By the sweep and by the customer's announcement; a later sweep releases it."""
    first, second = uuid4(), uuid4()
    await waiting(database, first, second)
    accounts = Accounts(database)

    async with holding(database, "SELECT FROM usage_events WHERE user_id = :user", user=first):
        swept = await accounts.sweep(NOW)
        await accounts.apply(provisioned(first, "cus_new", generation=2).data)
    afterwards = await accounts.sweep(NOW)

    assert (swept.released, afterwards.released) == (1, 1)


async def test_locked_run_expires_later_than_others(database: Database) -> None:
    """It does not keep the others from expiring."""
    first, second = uuid4(), uuid4()
    await waiting(database, first, second)
    accounts, late = Accounts(database), NOW + timedelta(days=36)

    async with holding(database, "SELECT FROM usage_events WHERE user_id = :user", user=first):
        swept = await accounts.sweep(late)
    afterwards = await accounts.sweep(late)

    assert (swept.expired, afterwards.expired) == (1, 1)


async def test_locked_report_is_superseded_later_than_others(database: Database) -> None:
    """It does not delay the reports of other customers."""
    users = uuid4(), uuid4()
    held, other = await leased(database, *users)
    accounts = Accounts(database)
    refusals = [
        ReportAnswer(each, "rejected", NOW, "no_such_customer", ever_unknown=False)
        for each in (held, other)
    ]
    await Reports(database).answer(refusals)
    for user in users:
        await accounts.apply(provisioned(user, f"cus_{user.hex}_2", generation=2).data)

    async with holding(database, "SELECT FROM usage_reports WHERE report_id = :held", held=held):
        swept = await accounts.sweep(NOW)
    afterwards = await accounts.sweep(NOW)

    assert (swept.superseded, afterwards.superseded) == (1, 1)
