"""Reports between ledger and reporter: leased, answered, superseded; states only rise."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from nexus_contracts import UsageRecorded
from nexus_database import Database
from rig.events import provisioned, tool_run
from rig.events import report as a_report
from usage_ingest.accounts import Accounts
from usage_ingest.claims import Claims
from usage_ingest.ledger import Entry, Ledger
from usage_ingest.loops import usage_recorded
from usage_ingest.metering import BillingRules
from usage_ingest.reports import LEASE, Answer, Reports

RULES = BillingRules("tool_call_executed", None, frozenset({"succeeded"}))
NOW = datetime.now(UTC)


async def pending(database: Database, user: UUID, reports: int = 1) -> None:
    """Leave ``reports`` reports of ``user`` to be forwarded."""
    await Accounts(database).apply(provisioned(user, "cus_first").data)
    events = [tool_run(user, time=NOW - timedelta(minutes=1)) for _ in range(reports)]
    await Ledger(database).record([Entry.of(each, RULES, NOW) for each in events])
    await Claims(database, window=timedelta(0), dimensions=()).claim(NOW)


async def states(database: Database) -> list[str]:
    """Return the states of all reports, oldest first."""
    query = text("SELECT state FROM usage_reports ORDER BY created_at, state")
    return list((await database.run(lambda c: c.execute(query))).scalars())


def answer(report: UsageRecorded, state: str, *, unknown: bool = False) -> Answer:
    """Return the reporter's answer to ``report``."""
    reason = "no_such_customer" if state == "rejected" else None
    return Answer(report.report_id, state, NOW, reason, unknown)


async def test_two_relays_at_once_never_lease_the_same_report(database: Database) -> None:
    """Each report goes out of one process only."""
    await pending(database, uuid4(), reports=40)
    reports = Reports(database)

    leases = await asyncio.gather(*(reports.lease(NOW, most=15) for _ in range(4)))

    leased = [report.report_id for lease in leases for report in lease.reports]
    assert len(leased) == len(set(leased)) == 40


async def test_a_lease_that_ran_out_is_taken_again(database: Database) -> None:
    """A relay that died between publish and mark delays its reports, no more."""
    await pending(database, uuid4())
    reports = Reports(database)
    first = (await reports.lease(NOW)).reports

    meanwhile = (await reports.lease(NOW + LEASE / 2)).reports
    afterwards = (await reports.lease(NOW + LEASE + timedelta(seconds=1))).reports

    assert meanwhile == []
    assert afterwards == first


async def test_what_the_broker_did_not_confirm_is_pending_at_once(database: Database) -> None:
    """Only confirmed reports are marked forwarded."""
    await pending(database, uuid4(), reports=2)
    reports = Reports(database)
    sent, unsent = (await reports.lease(NOW)).reports

    await reports.settle_lease(NOW, forwarded=[sent.report_id], failed=[unsent.report_id])

    assert await states(database) == ["forwarded", "pending"]
    assert (await reports.lease(NOW)).reports == [unsent]


@pytest.mark.parametrize("order", list(permutations(["forwarded", "rejected", "reported"])))
async def test_marks_in_any_order_end_in_the_highest_state(
    database: Database, order: tuple[str, ...]
) -> None:
    """A late mark of a lower state changes nothing."""
    await pending(database, uuid4())
    reports = Reports(database)
    [report] = (await reports.lease(NOW)).reports

    for mark in order:
        if mark == "forwarded":
            await reports.settle_lease(NOW, forwarded=[report.report_id], failed=[])
        else:
            await reports.answer([answer(report, mark)])

    assert await states(database) == ["reported"]


async def test_an_answer_to_a_report_nobody_made_is_told_apart(database: Database) -> None:
    """After a restore from a backup such answers must not vanish."""
    await pending(database, uuid4())
    reports = Reports(database)
    [report] = (await reports.lease(NOW)).reports
    stranger = Answer(uuid4(), "reported", NOW, None, ever_unknown=False)

    applied = await reports.answer([answer(report, "reported"), stranger])

    assert applied.strangers == {stranger.report_id}
    assert applied.states == {"reported": 1}
    assert applied.reported == {report.meter: report.value}
    assert await states(database) == ["reported"]


async def test_a_new_customer_takes_over_what_the_deleted_one_refused(
    database: Database,
) -> None:
    """The same usage is reported once more, to the customer of the higher generation."""
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


@pytest.mark.parametrize("order", [[0, 1], [1, 0]], ids=["in order", "later first"])
async def test_acceptance_beats_a_later_dated_rejection_in_one_batch(
    database: Database, order: list[int]
) -> None:
    """What Stripe counted stays counted, whatever was answered to a repetition afterwards."""
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
async def test_of_two_refusals_in_one_batch_the_later_counts_and_no_doubt_is_lost(
    database: Database, doubtful: int, order: list[int]
) -> None:
    """Whichever is read first: otherwise a report that may have been counted is superseded."""
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


async def test_a_refused_report_that_was_ever_unknown_is_never_superseded(
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


async def test_an_older_generation_never_replaces_a_newer_one(database: Database) -> None:
    """News of customers may come twice and in any order."""
    user, accounts = uuid4(), Accounts(database)

    applied = [
        await accounts.apply(provisioned(user, f"cus_{generation}", generation).data)
        for generation in (2, 1, 2, 3)
    ]

    query = text("SELECT stripe_customer_id FROM billing_accounts")
    customer = (await database.run(lambda c: c.execute(query))).scalar_one()
    assert applied == [True, False, False, True]
    assert customer == "cus_3"


async def test_usage_before_its_customer_waits_and_is_due_once_it_is_there(
    database: Database,
) -> None:
    """Nothing is lost by coming early, and nothing is claimed for nobody."""
    user = uuid4()
    await Ledger(database).record([Entry.of(tool_run(user), RULES, NOW)])
    claims = Claims(database, window=timedelta(0), dimensions=())

    before = await claims.claim(NOW)
    await Accounts(database).apply(provisioned(user, "cus_late").data)
    after = await claims.claim(NOW)

    assert (before.events, after.events) == (0, 1)


async def test_first_usage_and_provisioning_at_once_never_strand_the_usage(
    database: Database,
) -> None:
    """In 200 rounds of the two committing together, the sweep leaves nothing waiting."""
    ledger, accounts = Ledger(database), Accounts(database)
    for _ in range(200):
        user = uuid4()
        await asyncio.gather(
            ledger.record([Entry.of(tool_run(user), RULES, NOW)]),
            accounts.apply(provisioned(user, "cus_race").data),
        )

    await accounts.sweep(NOW)

    claimed = await Claims(database, window=timedelta(0), dimensions=()).claim(NOW)
    assert claimed.events == 200


async def test_usage_that_waited_35_days_expires_and_is_never_sent(database: Database) -> None:
    """Stripe would refuse it, so it is said and not tried."""
    user = uuid4()
    await Ledger(database).record([Entry.of(tool_run(user, time=NOW), RULES, NOW)])

    swept = await Accounts(database).sweep(NOW + timedelta(days=35))
    await Accounts(database).apply(provisioned(user, "cus_late").data)

    assert swept.expired == 1
    assert (await Claims(database, window=timedelta(0), dimensions=()).claim(NOW)).events == 0


async def test_the_billing_view_shows_the_identifier_once_reported(database: Database) -> None:
    """Who asks whether a run was billed finds Stripe's identifier, and nothing before that."""
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


async def test_all_that_waited_for_a_customer_is_released_in_portions(database: Database) -> None:
    """However much it is, each transaction ends in time; the sweep says whether more is left."""
    user, accounts = uuid4(), Accounts(database)
    await Ledger(database).record([Entry.of(tool_run(user), RULES, NOW) for _ in range(35)])

    await accounts.apply(provisioned(user, "cus_late").data, most=10)
    swept = [await accounts.sweep(NOW, most=10) for _ in range(4)]

    assert [each.released for each in swept] == [10, 10, 5, 0]
    assert [each.more for each in swept] == [True, True, False, False]


async def test_each_refused_report_has_one_successor(database: Database) -> None:
    """Several at once keep apart, and a successor that is refused too is not replaced once more."""
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


async def test_a_refused_report_of_35_days_is_not_replaced(database: Database) -> None:
    """Stripe would refuse its successor for its age: it stays what it is."""
    user = uuid4()
    await pending(database, user)
    reports, accounts = Reports(database), Accounts(database)
    [report] = (await reports.lease(NOW)).reports
    await reports.answer([answer(report, "rejected")])
    await accounts.apply(provisioned(user, "cus_second", generation=2).data)

    assert (await accounts.sweep(NOW + timedelta(days=35))).superseded == 0
    assert await states(database) == ["rejected"]


async def test_due_usage_that_nobody_claimed_for_35_days_expires(database: Database) -> None:
    """As after a long pause of reporting: it is said, and never sent in vain."""
    user = uuid4()
    await Accounts(database).apply(provisioned(user, "cus_known").data)
    await Ledger(database).record([Entry.of(tool_run(user, time=NOW), RULES, NOW)])

    swept = await Accounts(database).sweep(NOW + timedelta(days=35))

    claims = Claims(database, window=timedelta(0), dimensions=())
    assert swept.expired == 1
    assert (await claims.claim(NOW + timedelta(days=35))).events == 0


async def test_a_customer_releases_the_usage_of_its_own_user_alone(database: Database) -> None:
    """That of others goes on waiting, and is told of as waiting."""
    user = uuid4()
    runs = [tool_run(user), tool_run()]
    await Ledger(database).record([Entry.of(each, RULES, NOW) for each in runs])

    await Accounts(database).apply(provisioned(user, "cus_late").data)

    query = text("SELECT user_id, billing_state FROM usage_events")
    rows = (await database.run(lambda c: c.execute(query))).all()
    assert {row.user_id: row.billing_state for row in rows} == {
        user: "due",
        runs[1].data.user_id: "waiting",
    }


async def test_a_report_that_another_transaction_holds_delays_no_other(
    database: Database,
) -> None:
    """A relay that was frozen while it leased must not stop the one beside it."""
    await pending(database, uuid4(), reports=2)
    hold = text("SELECT report_id FROM usage_reports ORDER BY created_at LIMIT 1 FOR UPDATE")

    async with database.engine.connect() as frozen:
        held = (await frozen.execute(hold)).scalar_one()
        leased = (await Reports(database).lease(NOW)).reports
        await frozen.rollback()

    assert len(leased) == 1
    assert leased[0].report_id != held


def test_a_report_forwarded_again_is_the_same_event() -> None:
    """An operator, and whoever drops repetitions by their id, sees one event and not two."""
    report = a_report("cus_known").data

    first, again = (usage_recorded(report, NOW + timedelta(minutes=n)) for n in range(2))

    assert first.id == again.id == report.report_id
    assert first.data == again.data


async def test_usage_without_a_customer_stays_waiting_through_sweeps(database: Database) -> None:
    """Else nobody would be alerted to it; too much that expires at once goes in portions, too."""
    accounts, late = Accounts(database), NOW + timedelta(days=36)
    await Ledger(database).record([Entry.of(tool_run(), RULES, NOW) for _ in range(15)])

    young = await accounts.sweep(NOW)
    swept = [await accounts.sweep(late, most=10) for _ in range(2)]

    assert young.released == 0
    assert [(each.expired, each.more) for each in swept] == [(10, True), (5, False)]
