"""Which refused reports a new customer takes over, and what a successor is."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from nexus_database import Database
from rig.events import provisioned, tool_run
from usage_ingest.accounts import Accounts, Swept
from usage_ingest.claims import Claims
from usage_ingest.ledger import Entry, Ledger
from usage_ingest.metering import BillingRules
from usage_ingest.reports import Answer, Reports

RULES = BillingRules("tool_call_executed", None, frozenset({"succeeded"}))
NOW = datetime.now(UTC)
GONE = "no_such_customer"


async def refuse(database: Database, reason: str) -> None:
    """Have every report that is pending refused."""
    reports = Reports(database)
    refused = (await reports.lease(NOW)).reports
    answers = [Answer(each.report_id, "rejected", NOW, reason, False) for each in refused]
    await reports.answer(answers)


async def refused_report(database: Database, reason: str = GONE) -> UUID:
    """Leave a refused report of a user's first customer; return the user."""
    user = uuid4()
    await Accounts(database).apply(provisioned(user, "cus_1").data)
    run = tool_run(user, time=NOW - timedelta(minutes=1))
    await Ledger(database).record([Entry.of(run, RULES, NOW)])
    await Claims(database, window=timedelta(0), dimensions=()).claim(NOW)
    await refuse(database, reason)
    return user


async def renewed(database: Database, user: UUID, generation: int, now: datetime = NOW) -> Swept:
    """Let the user have a new customer, and sweep."""
    accounts = Accounts(database)
    await accounts.apply(provisioned(user, f"cus_{generation}", generation).data)
    return await accounts.sweep(now)


@pytest.mark.parametrize(
    ("reason", "age"),
    [("refused_by_stripe", timedelta()), (GONE, timedelta(days=36))],
    ids=["refused for something else", "too old for Stripe"],
)
async def test_report_that_a_new_customer_would_not_help_stays_refused(
    database: Database, reason: str, age: timedelta
) -> None:
    """A successor would be refused as well, for the same reason or for its age."""
    user = await refused_report(database, reason)

    swept = await renewed(database, user, 2, NOW + age)

    assert swept.superseded == 0


async def test_successor_is_of_the_generation_that_it_is_sent_to(database: Database) -> None:
    """Refused in its turn, it waits for a third customer instead of being made anew for ever."""
    user = await refused_report(database)
    second = await renewed(database, user, 2)
    await refuse(database, GONE)

    meanwhile = await Accounts(database).sweep(NOW)
    third = await renewed(database, user, 3)

    assert [each.superseded for each in (second, meanwhile, third)] == [1, 0, 1]
    query = text("SELECT generation, state FROM usage_reports ORDER BY 1")
    found = await database.run(lambda c: c.execute(query))
    assert found.all() == [(1, "superseded"), (2, "superseded"), (3, "pending")]


async def test_due_usage_of_35_days_expires_and_is_never_sent(database: Database) -> None:
    """Its customer was known all the while, and reporting was paused."""
    user = uuid4()
    await Accounts(database).apply(provisioned(user, "cus_1").data)
    await Ledger(database).record([Entry.of(tool_run(user, time=NOW), RULES, NOW)])

    swept = await Accounts(database).sweep(NOW + timedelta(days=35))

    assert swept.expired == 1
    assert (await Claims(database, window=timedelta(0), dimensions=()).claim(NOW)).events == 0
