"""`usage-ingest adopt` names what is missing or wrong, and exits with 1."""

import asyncio

import pytest
from sqlalchemy import text

from integration.usage_ingest.lost_ledger import TOKENS, LostLedger, output, run
from local_stack.sql import run_sql
from support.waiting import eventually

RIVAL_CLAIM = "UPDATE usage_events SET billing_state = 'claimed', claim_id = gen_random_uuid()"
CHANGE = """
UPDATE usage_reports SET meter = 'runs' || chr(7)
 WHERE identifier = (SELECT min(identifier) FROM usage_reports)
"""
BLOCKED = """
SELECT count(*)::int FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def test_missing_events_are_named_until_they_are_back(
    lost: LostLedger,
) -> None:
    """No event is claimed twice; once all events are back the exit code is 0."""
    first, second, third = run(1), run(2, token_count=3), run(15, token_count=4)
    lost.back_up()
    await lost.record(first, second, third)
    await lost.claim()
    calls = await lost.lose()

    none = await lost.adopt(calls, "--execute")
    await lost.record(second)
    some = await lost.adopt(calls, "--execute")
    again = await lost.adopt(calls, "--execute")
    await lost.record(first, second, third)
    all_of_them = await lost.adopt(calls, "--execute")

    assert none == output(1, "4 0 0 4 0", "events missing, to be published again: 3 (cus_one 3)")
    assert some == output(1, "4 4 0 0 1", "events missing, to be published again: 2 (cus_one 2)")
    assert again == output(1, "4 4 0 0 0", "events missing, to be published again: 2 (cus_one 2)")
    assert all_of_them == output(0, "4 4 0 0 2")
    assert await lost.claim() == 0
    assert await lost.disagreeing() == []


@pytest.mark.parametrize("cut", ["the end", "half a line", "a line in between"])
async def test_list_that_is_cut_off_is_a_fault(lost: LostLedger, cut: str) -> None:
    """A report that is not in it would be made again, and billed twice."""
    lost.back_up()
    await lost.record(run(1), run(11))
    await lost.claim()
    lines = (await lost.lose()).splitlines()
    await lost.record(run(1), run(11))
    if cut == "the end":
        lines.pop()
    elif cut == "half a line":
        lines = [lines[0], lines[1][:90]]
    else:
        del lines[1]

    code, shown = await lost.adopt("\n".join(lines), "--execute")

    assert code == 1
    assert "the list is cut off: have `stripe-reporter journal` write it again" in shown


async def test_difference_is_named_by_customer_and_meter(lost: LostLedger) -> None:
    """A run with other tokens came first in its window; the counted sum stands."""
    lost.back_up()
    await lost.record(run(5, token_count=50))
    await lost.claim()
    calls = await lost.lose()
    await lost.record(run(6, token_count=7))

    assert await lost.adopt(calls, "--execute") == output(
        1, "2 0 0 2 1", f"cus_one {TOKENS}: reported +43 beside what the claimed events read"
    )
    assert await lost.claim() == 0


async def test_service_that_claims_at_the_same_time_is_a_fault(lost: LostLedger) -> None:
    """It was not paused: events that it claimed are not counted as claimed, and are missing."""
    lost.back_up()
    await lost.record(run(1))
    await lost.claim()
    calls = await lost.lose()
    await lost.record(run(1))

    async with lost.database.engine.begin() as rival:
        await rival.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        await rival.execute(text(RIVAL_CLAIM))
        adopting = asyncio.create_task(lost.adopt(calls, "--execute"))
        await eventually(lambda: lost.rows(BLOCKED), [(1,)].__eq__, within=60)

    missing = "events missing, to be published again: 1 (cus_one 1)"
    fault = "1 events were claimed by a service that is not paused"
    assert await adopting == output(1, "1 0 0 1 0", missing, fault)


async def test_invalid_report_in_the_ledger_is_a_conflict(lost: LostLedger, password: str) -> None:
    """A row that was changed by hand does not stop the recovery of the others."""
    await lost.record(run(1), run(12))
    await lost.claim()
    calls = await lost.calls()
    name = lost.url.rpartition("/")[2]
    run_sql(lost.postgres.url(name, "usage_ingest_owner", password), CHANGE)

    code, lines = await lost.adopt(calls)

    assert code == 1
    [(changed,)] = await lost.rows("SELECT identifier FROM usage_reports WHERE meter LIKE 'runs%'")
    assert lines[-1] == f"reports that contradict the ledger: 1 ({changed} 1)"
