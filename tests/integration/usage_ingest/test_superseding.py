"""Which refused reports are superseded by a report to a new customer."""

from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from integration.usage_ingest.billed import NOW, RULES, answer, pending, states
from nexus_database import Database
from support.events import provisioned, tool_run
from usage_ingest.entry import Entry
from usage_ingest.storage.accounts import Accounts, Swept
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.reports import ReportAnswer, Reports

GONE = "no_such_customer"


async def refuse(database: Database, reason: str) -> None:
    """Have every pending report refused."""
    reports = Reports(database)
    refused = (await reports.lease(NOW)).reports
    answers = [ReportAnswer(each.report_id, "rejected", NOW, reason, False) for each in refused]
    await reports.answer(answers)


async def refused_report(database: Database, reason: str = GONE) -> UUID:
    """Make a refused report of a user's first customer; return the user."""
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
async def test_report_refused_for_reason_or_age_stays_refused(
    database: Database, reason: str, age: timedelta
) -> None:
    """Its successor would be refused for the same reason, or for its age."""
    user = await refused_report(database, reason)

    swept = await renewed(database, user, 2, NOW + age)

    assert swept.superseded == 0


async def test_successor_has_the_generation_of_its_customer(database: Database) -> None:
    """If it is refused, too, it waits for a third customer."""
    user = await refused_report(database)
    second = await renewed(database, user, 2)
    await refuse(database, GONE)

    meanwhile = await Accounts(database).sweep(NOW)
    third = await renewed(database, user, 3)

    assert [each.superseded for each in (second, meanwhile, third)] == [1, 0, 1]
    query = text("SELECT generation, state FROM usage_reports ORDER BY 1")
    found = await database.run(lambda c: c.execute(query))
    assert found.all() == [(1, "superseded"), (2, "superseded"), (3, "pending")]


async def test_report_refused_for_a_deleted_customer_is_superseded(
    database: Database,
) -> None:
    """The same usage is reported again, to the customer of the higher generation."""
    user = uuid4()
    await pending(database, user)
    reports, accounts = Reports(database), Accounts(database)
    [report] = (await reports.lease(NOW)).reports
    await reports.answer([answer(report, "rejected")])

    before = await accounts.sweep(NOW)
    await accounts.apply(provisioned(user, "cus_second", generation=2).data)
    after = await accounts.sweep(NOW)
    again = await accounts.sweep(NOW)

    assert (before.superseded, after.superseded, again.superseded) == (0, 1, 0)
    [successor] = (await reports.lease(NOW)).reports
    assert successor.stripe_customer_id == "cus_second"
    assert successor.identifier != report.identifier
    assert (successor.value, successor.occurred_at) == (report.value, report.occurred_at)
    assert sorted(await states(database)) == ["pending", "superseded"]


async def test_report_that_was_ever_unknown_is_never_superseded(
    database: Database,
) -> None:
    """It may have been counted before the customer was deleted."""
    user = uuid4()
    await pending(database, user)
    reports, accounts = Reports(database), Accounts(database)
    [report] = (await reports.lease(NOW)).reports
    await reports.answer([answer(report, "rejected", unknown=True)])

    await accounts.apply(provisioned(user, "cus_second", generation=2).data)

    assert (await accounts.sweep(NOW)).superseded == 0
    assert await states(database) == ["rejected"]


async def test_each_refused_report_has_one_successor(database: Database) -> None:
    """Even several at once; a successor that is refused, too, is not replaced again."""
    user = uuid4()
    await pending(database, user, reports=3)
    reports, accounts = Reports(database), Accounts(database)
    refused = (await reports.lease(NOW)).reports
    await reports.answer([answer(report, "rejected") for report in refused])
    await accounts.apply(provisioned(user, "cus_second", generation=2).data)

    first = await accounts.sweep(NOW)
    successors = (await reports.lease(NOW)).reports
    await reports.answer([answer(report, "rejected") for report in successors])
    second = await accounts.sweep(NOW)

    assert len({report.identifier for report in [*refused, *successors]}) == 6
    assert (first.superseded, second.superseded) == (3, 0)


async def test_refused_report_of_35_days_is_not_superseded(database: Database) -> None:
    """Stripe would refuse its successor for its age."""
    user = uuid4()
    await pending(database, user)
    reports, accounts = Reports(database), Accounts(database)
    [report] = (await reports.lease(NOW)).reports
    await reports.answer([answer(report, "rejected")])
    await accounts.apply(provisioned(user, "cus_second", generation=2).data)

    assert (await accounts.sweep(NOW + timedelta(days=35))).superseded == 0
    assert await states(database) == ["rejected"]
