"""Reports between the ledger and the reporter: leased and answered; states only rise."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from uuid import uuid4

import pytest
from sqlalchemy import text

from integration.usage_ingest.billed import NOW, answer, pending, states
from nexus_database import Database
from support.events import provisioned
from support.events import report as a_report
from usage_ingest.jobs import usage_recorded
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.reports import LEASE, ReportAnswer, Reports


async def test_two_relays_never_lease_the_same_report(database: Database) -> None:
    """Only one process forwards each report."""
    await pending(database, uuid4(), reports=40)
    reports = Reports(database)

    leases = await asyncio.gather(*(reports.lease(NOW, most=15) for _ in range(4)))

    leased = [report.report_id for lease in leases for report in lease.reports]
    assert len(leased) == len(set(leased)) == 40


async def test_report_is_leased_again_after_its_lease(database: Database) -> None:
    """A relay that ends between publishing and marking only delays its reports."""
    await pending(database, uuid4())
    reports = Reports(database)
    first = (await reports.lease(NOW)).reports

    meanwhile = (await reports.lease(NOW + LEASE / 2)).reports
    afterwards = (await reports.lease(NOW + LEASE + timedelta(seconds=1))).reports

    assert meanwhile == []
    assert afterwards == first


async def test_unconfirmed_report_is_pending_at_once(database: Database) -> None:
    """Only confirmed reports are marked as forwarded."""
    await pending(database, uuid4(), reports=2)
    reports = Reports(database)
    sent, unsent = (await reports.lease(NOW)).reports

    await reports.settle_lease(NOW, forwarded=[sent.report_id], failed=[unsent.report_id])

    assert await states(database) == ["forwarded", "pending"]
    assert (await reports.lease(NOW)).reports == [unsent]


@pytest.mark.parametrize("order", list(permutations(["forwarded", "rejected", "reported"])))
async def test_updates_in_any_order_end_in_the_highest_state(
    database: Database, order: tuple[str, ...]
) -> None:
    """A late update to a lower state changes nothing."""
    await pending(database, uuid4())
    reports = Reports(database)
    [report] = (await reports.lease(NOW)).reports

    for mark in order:
        if mark == "forwarded":
            await reports.settle_lease(NOW, forwarded=[report.report_id], failed=[])
        else:
            await reports.answer([answer(report, mark)])

    assert await states(database) == ["reported"]


async def test_answer_to_an_unknown_report_is_returned(database: Database) -> None:
    """After a restore from a backup such answers must not be lost."""
    await pending(database, uuid4())
    reports = Reports(database)
    [report] = (await reports.lease(NOW)).reports
    unknown = ReportAnswer(uuid4(), "reported", NOW, None, ever_unknown=False)

    applied = await reports.answer([answer(report, "reported"), unknown])

    assert applied.unknown == {unknown.report_id}
    assert applied.states == {"reported": 1}
    assert applied.reported == {report.meter: report.value}
    assert await states(database) == ["reported"]


@pytest.mark.parametrize("order", [[0, 1], [1, 0]], ids=["in order", "later first"])
async def test_acceptance_wins_over_a_later_rejection_in_a_batch(
    database: Database, order: list[int]
) -> None:
    """A counted report stays counted, whatever the answer to a repetition was."""
    await pending(database, uuid4())
    reports = Reports(database)
    [report] = (await reports.lease(NOW)).reports
    refusal = replace(answer(report, "rejected"), at=NOW + timedelta(hours=1))
    batch = [answer(report, "reported"), refusal]

    applied = await reports.answer([batch[place] for place in order])

    assert applied.states == {"reported": 1}
    assert await states(database) == ["reported"]


@pytest.mark.parametrize("order", [[0, 1], [1, 0]], ids=["in order", "later first"])
@pytest.mark.parametrize("doubtful", [0, 1], ids=["earlier doubtful", "later doubtful"])
async def test_later_of_two_rejections_wins_and_keeps_ever_unknown(
    database: Database, doubtful: int, order: list[int]
) -> None:
    """In any order: otherwise a report that may have been counted would be superseded."""
    user = uuid4()
    await pending(database, user)
    reports, accounts = Reports(database), Accounts(database)
    [report] = (await reports.lease(NOW)).reports
    refusal = answer(report, "rejected")
    batch = [refusal, replace(refusal, at=NOW + timedelta(hours=1), reason="refused_by_stripe")]
    batch[doubtful] = replace(batch[doubtful], ever_unknown=True)

    await reports.answer([batch[place] for place in order])

    query = text("SELECT reason, ever_unknown FROM usage_reports")
    rows = await database.run(lambda c: c.execute(query))
    assert rows.all() == [("refused_by_stripe", True)]
    await accounts.apply(provisioned(user, "cus_second", generation=2).data)
    assert (await accounts.sweep(NOW)).superseded == 0


async def test_billing_view_shows_the_identifier_once_reported(database: Database) -> None:
    """For a run that was billed there is Stripe's identifier, and nothing before."""
    await pending(database, uuid4())
    reports = Reports(database)
    [report] = (await reports.lease(NOW)).reports
    query = text(
        "SELECT user_id, tool_name, server_id, token_count, created_at, stripe_event_id"
        " FROM billing_usage_events"
    )

    before = (await database.run(lambda c: c.execute(query))).one()
    await reports.answer([answer(report, "reported")])
    after = (await database.run(lambda c: c.execute(query))).one()

    assert before.stripe_event_id is None
    assert after.stripe_event_id == report.identifier


async def test_locked_report_delays_no_other(
    database: Database,
) -> None:
    """A relay that is frozen while it leases does not stop another one."""
    await pending(database, uuid4(), reports=2)
    hold = text("SELECT report_id FROM usage_reports ORDER BY created_at LIMIT 1 FOR UPDATE")

    async with database.engine.connect() as frozen:
        held = (await frozen.execute(hold)).scalar_one()
        leased = (await Reports(database).lease(NOW)).reports
        await frozen.rollback()

    assert len(leased) == 1
    assert leased[0].report_id != held


def test_report_forwarded_again_is_the_same_event() -> None:
    """Operators, and whatever drops repetitions by id, see one event."""
    report = a_report("cus_known").data

    first, again = (usage_recorded(report, NOW + timedelta(minutes=n)) for n in range(2))

    assert first.id == again.id == report.report_id
    assert first.data == again.data
