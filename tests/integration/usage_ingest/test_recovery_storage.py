"""Recovery beside others: a second command, other dimensions, the next window, old reports."""

import asyncio
from datetime import timedelta

import pytest

from integration.usage_ingest.lost_ledger import LATER, ONE, LostLedger, run
from nexus_contracts import CallRecord, read_call_record
from usage_ingest.recovery.storage import Recovery
from usage_ingest.storage.reports import ReportAnswer, Reports

WINDOW = timedelta(seconds=10)


@pytest.fixture
async def lost(lost: LostLedger) -> LostLedger:
    """Return a ledger with one customer, backed up before anything was recorded."""
    lost.back_up()
    return lost


def records(calls: str) -> list[CallRecord]:
    """Return the calls of a list."""
    read = [read_call_record(line) for line in calls.splitlines()]
    return [each for each in read if isinstance(each, CallRecord)]


def recovery(lost: LostLedger) -> Recovery:
    """Return a recovery that changes the ledger."""
    return Recovery(lost.database, window=WINDOW, execute=True)


async def test_commands_at_once_restore_each_report_once(lost: LostLedger) -> None:
    """They wait for each other: the second finds the rows of the first."""
    for minute in range(-60, 0):
        await lost.record(run(60 * minute))
    await lost.claim()
    calls = records(await lost.lose())

    restored = await asyncio.gather(*(recovery(lost).restore_reports(calls) for _ in range(4)))

    assert sorted(each.inserted for each in restored) == [0, 0, 0, len(calls)]
    assert sorted(each.known for each in restored) == [0, *[len(calls)] * 3]


async def test_ever_unknown_is_restored_with_its_report(lost: LostLedger) -> None:
    """A report that may have been counted is not replaced for the next customer."""
    await lost.record(run(1))
    await lost.claim()
    [(report,)] = await lost.rows("SELECT report_id FROM usage_reports")
    lost.records = {report: {"state": "unknown", "ever_unknown": True}}
    calls = records(await lost.lose())
    await recovery(lost).restore_reports(calls)

    refusal = ReportAnswer(report, "rejected", LATER, "no_such_customer", ever_unknown=False)
    await Reports(lost.database).answer([refusal])
    await lost.announce(ONE, "cus_two", 2)

    assert await lost.sweep() == 0


async def test_run_at_the_end_of_a_window_belongs_to_the_next(lost: LostLedger) -> None:
    """It was never counted: a report that lacks its run does not take it."""
    await lost.record(run(1))
    await lost.claim()
    calls = records(await lost.lose())
    await recovery(lost).restore_reports(calls)
    await lost.record(run(10))

    claimed = await recovery(lost).claim_events(calls)

    assert (claimed.claimed, claimed.missing) == (0, {"cus_one": 1})
    assert await lost.claim() == 1


async def test_claims_of_other_dimensions_share_no_run(lost: LostLedger) -> None:
    """The setting was changed within a window; an event that another claim took is missing."""
    first, second, third = run(1), run(2), run(3)
    await lost.record(first, third)
    await lost.claim()
    lost.dimensions = ("tool_name",)
    await lost.record(second)
    await lost.claim()
    calls = records(await lost.lose())
    await recovery(lost).restore_reports(calls)
    await lost.record(first, second, third)

    at_first = await recovery(lost).claim_events(calls)
    await recovery(lost).claim_events(calls)

    assert at_first.claimed + at_first.missing.total() == 3
    assert await lost.disagreeing() == []
