"""A ledger restored from a backup takes back what Stripe already counted, and sends none of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from integration.usage_ingest.losses import MINUTE, RUNS, TOKENS, Loss
from local_stack.servers import Database as PostgresServer
from local_stack.sql import run_sql
from rig.events import tool_run
from rig.waiting import eventually
from usage_ingest.metering import ToolRun

ONE = UUID(int=1)

RIVAL_CLAIM = "UPDATE usage_events SET billing_state = 'claimed', claim_id = gen_random_uuid()"
CHANGE = """
UPDATE usage_reports SET meter = 'runs' || chr(7)
 WHERE identifier = (SELECT min(identifier) FROM usage_reports)
"""
BLOCKED = """
SELECT count(*)::int FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@pytest.fixture
async def loss(
    postgres: PostgresServer, clone: Callable[[str], Awaitable[str]], tmp_path: Path
) -> AsyncIterator[Loss]:
    """Return an empty ledger that is going to be lost; one customer is known."""
    fresh = Loss(postgres, await clone("usage_ingest"), tmp_path)
    await fresh.know(ONE, "cus_one")
    yield fresh
    await fresh.database.close()


def run(second: float, user: UUID = ONE, **data: Any) -> ToolRun:
    """Return a run of the minute."""
    return tool_run(user, time=MINUTE + timedelta(seconds=second), **data)


def said(code: int, reports: str, *faults: str) -> tuple[int, list[str]]:
    """Return what the command says; ``reports``: read, there, brought up, put back; and events."""
    total, there, marked, back, events = reports.split()
    summed_up = (
        f"{total} reports: {there} were there, {marked} of them brought up to date;"
        f" {back} put back; {events} events claimed for them"
    )
    return code, [summed_up, *faults]


async def test_what_was_counted_after_the_backup_is_put_back_and_never_claimed_again(
    loss: Loss,
) -> None:
    """Events of the backup that were claimed later, events published again, and late parts."""
    early, lost = [run(1, token_count=5), run(2)], [run(12, token_count=7), run(13)]
    await loss.record(*early)
    loss.back_up()
    await loss.claim()
    late = [run(3), run(0.5, token_count=11)]
    await loss.record(*lost, *late)
    await loss.claim()
    told = await loss.lose()
    await loss.record(*lost, *late)

    adopted = await loss.adopt(told, "--execute")

    assert adopted == said(0, "6 0 0 6 6")
    assert await loss.claim() == 0
    assert await loss.disagreeing() == []
    assert await loss.reports() == [(RUNS, "reported", 3, 6), (TOKENS, "reported", 3, 23)]


async def test_events_that_come_back_later_are_taken_later_and_what_is_missing_is_named(
    loss: Loss,
) -> None:
    """Nothing is taken twice; once all are back the exit code says so."""
    first, second, third = run(1), run(2, token_count=3), run(15, token_count=4)
    loss.back_up()
    await loss.record(first, second, third)
    await loss.claim()
    told = await loss.lose()

    none = await loss.adopt(told, "--execute")
    await loss.record(second)
    some = await loss.adopt(told, "--execute")
    again = await loss.adopt(told, "--execute")
    await loss.record(first, second, third)
    all_of_them = await loss.adopt(told, "--execute")

    assert none == said(1, "4 0 0 4 0", "events missing, to be published again: 3 (cus_one 3)")
    assert some == said(1, "4 4 0 0 1", "events missing, to be published again: 2 (cus_one 2)")
    assert again == said(1, "4 4 0 0 0", "events missing, to be published again: 2 (cus_one 2)")
    assert all_of_them == said(0, "4 4 0 0 2")
    assert await loss.claim() == 0
    assert await loss.disagreeing() == []


async def test_what_was_never_reported_is_reported_once_all_is_back(loss: Loss) -> None:
    """A late run in a counted window, and runs of windows never claimed: they are new, and stay so.

    Not even a report that lacks its run takes them.
    """
    counted, absent = run(5), run(35)
    late, earlier, after = run(1), run(25), run(45)
    loss.back_up()
    await loss.record(counted, absent)
    await loss.claim()
    told = await loss.lose()
    await loss.record(counted, late, earlier, after)

    fault = "events missing, to be published again: 1 (cus_one 1)"
    assert await loss.adopt(told, "--execute") == said(1, "2 0 0 2 1", fault)
    await loss.record(absent)
    assert await loss.adopt(told, "--execute") == said(0, "2 2 0 0 1")
    assert await loss.claim() == 3
    [(late_state,)] = await loss.rows(
        "SELECT r.state FROM usage_events e JOIN usage_reports r USING (claim_id)"
        " ORDER BY e.occurred_at LIMIT 1"
    )
    assert late_state == "pending"


async def test_what_may_have_been_counted_goes_on_under_its_old_identifier(loss: Loss) -> None:
    """A replay forwards it; what was refused for good stays refused, its events with it."""
    loss.back_up()
    await loss.record(run(1), run(11), run(21))
    await loss.claim()
    ids = [row[0] for row in await loss.rows("SELECT report_id FROM usage_reports ORDER BY 1")]
    loss.word = {
        ids[0]: {"state": "unknown", "ever_unknown": True},
        ids[1]: {"state": "calling", "answered_at": None},
        ids[2]: {"state": "refused", "reason": "refused_by_stripe"},
    }
    told = await loss.lose()
    await loss.record(run(1), run(11), run(21))

    assert await loss.adopt(told, "--execute") == said(0, "3 0 0 3 3")
    found = await loss.rows("SELECT report_id, state, reason FROM usage_reports ORDER BY 1")
    assert found == [
        (ids[0], "forwarded", None),
        (ids[1], "forwarded", None),
        (ids[2], "rejected", "refused_by_stripe"),
    ]
    assert await loss.claim() == 0


async def test_reports_of_the_backup_learn_what_became_of_them(loss: Loss) -> None:
    """Pending in the backup, forwarded and counted since; its answer will not come again."""
    await loss.record(run(1), run(11))
    await loss.claim()
    loss.back_up()
    told = await loss.lose()

    assert await loss.adopt(told, "--execute") == said(0, "2 2 2 0 0")
    assert await loss.reports() == [(RUNS, "reported", 2, 2)]
    assert await loss.adopt(told, "--execute") == said(0, "2 2 0 0 0")


async def test_a_report_that_took_over_after_the_backup_is_not_made_once_more(loss: Loss) -> None:
    """The customer was deleted and made anew in the lost hour: the backup knows the old report."""
    await loss.record(run(1))
    await loss.claim()
    loss.back_up()
    [(old,)] = await loss.rows("SELECT report_id FROM usage_reports")
    loss.word[old] = {"state": "refused", "reason": "no_such_customer"}
    await loss.rows(
        "UPDATE usage_reports SET state = 'rejected', reason = 'no_such_customer' RETURNING 1"
    )
    await loss.know(ONE, "cus_two", 2)
    assert await loss.sweep() == 1
    told = await loss.lose()

    early = await loss.adopt(told, "--execute")
    await loss.know(ONE, "cus_two", 2)
    adopted = await loss.adopt(told, "--execute")

    assert early == said(
        1, "2 1 1 0 0", "reports of customers that are not known yet: 1 (cus_two 1)"
    )
    assert adopted == said(0, "2 1 1 1 0")
    assert await loss.sweep() == 0
    assert await loss.reports() == [(RUNS, "reported", 1, 1), (RUNS, "superseded", 1, 1)]


async def test_without_execute_nothing_is_changed(loss: Loss) -> None:
    """The figures are those of what would be done."""
    loss.back_up()
    await loss.record(run(1), run(2))
    await loss.claim()
    told = await loss.lose()
    await loss.record(run(1), run(2))

    code, lines = await loss.adopt(told)

    assert (code, lines[0].rpartition("; ")[2]) == (0, "nothing was changed: add --execute")
    assert "1 put back; 2 events claimed" in lines[0]
    assert await loss.reports() == []


@pytest.mark.parametrize("cut", ["the end", "half a line", "a line in between"])
async def test_a_list_that_was_cut_off_is_never_called_complete(loss: Loss, cut: str) -> None:
    """Else a report that is not in it would be made anew, and billed twice."""
    loss.back_up()
    await loss.record(run(1), run(11))
    await loss.claim()
    lines = (await loss.lose()).splitlines()
    await loss.record(run(1), run(11))
    if cut == "the end":
        lines.pop()
    elif cut == "half a line":
        lines = [lines[0], lines[1][:90]]
    else:
        del lines[1]

    code, told = await loss.adopt("\n".join(lines), "--execute")

    assert code == 1
    assert "the list is cut off: have `stripe-reporter journal` write it again" in told


async def test_money_that_does_not_agree_is_named_by_customer_and_meter(loss: Loss) -> None:
    """A run with other tokens came first in its window: what was counted stands, and it is told."""
    loss.back_up()
    await loss.record(run(5, token_count=50))
    await loss.claim()
    told = await loss.lose()
    await loss.record(run(6, token_count=7))

    assert await loss.adopt(told, "--execute") == said(
        1, "2 0 0 2 1", f"cus_one {TOKENS}: reported +43 beside what the claimed events read"
    )
    assert await loss.claim() == 0


@pytest.mark.parametrize(
    ("window", "dimensions"), [(0, ()), (0, ("tool_name",)), (60, ("server_id", "tool_name"))]
)
async def test_windows_and_dimensions_are_found_again(
    loss: Loss, window: int, dimensions: tuple[str, ...]
) -> None:
    """No windows, with many runs of one moment; windows of a minute, split by tool."""
    ledger = replace(loss, window=window, dimensions=dimensions)
    runs = [
        run(second, tool_name=tool, token_count=tokens)
        for second in (1, 1, 1, 30)
        for tool in ("radar", "forecast")
        for tokens in (0, 2)
    ]
    ledger.back_up()
    await ledger.record(*runs)
    await ledger.claim()
    told = await ledger.lose()
    await ledger.record(*runs)

    code, lines = await ledger.adopt(told, "--execute")

    assert (code, lines[1:]) == (0, [])
    assert lines[0].endswith("16 events claimed for them")
    assert await ledger.claim() == 0
    assert await ledger.disagreeing() == []
    await ledger.database.close()


async def test_a_service_that_claims_meanwhile_is_told_of(loss: Loss) -> None:
    """It was not paused: what it took in that very moment is not called taken back."""
    loss.back_up()
    await loss.record(run(1))
    await loss.claim()
    told = await loss.lose()
    await loss.record(run(1))

    async with loss.database.engine.begin() as rival:
        await rival.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        await rival.execute(text(RIVAL_CLAIM))
        adopting = asyncio.create_task(loss.adopt(told, "--execute"))
        await eventually(lambda: loss.rows(BLOCKED), [(1,)].__eq__, within=60)

    fault = "1 events were claimed by a service that is not paused"
    assert await adopting == said(1, "1 0 0 1 0", fault)


async def test_usage_that_became_too_old_meanwhile_is_still_the_counted_ones(loss: Loss) -> None:
    """Reported on its 35th day, published again a day later: expired, and yet it was counted."""
    loss.back_up()
    await loss.record(run(1))
    await loss.claim()
    told = await loss.lose()
    await loss.record(run(1))
    await loss.rows("UPDATE usage_events SET billing_state = 'expired' RETURNING 1")

    assert await loss.adopt(told, "--execute") == said(0, "1 0 0 1 1")


async def test_many_reports_are_taken_back_in_batches(loss: Loss) -> None:
    """More than fit a batch, from several customers; the order of the list does not matter."""
    users = [uuid4() for _ in range(30)]
    for number, user in enumerate(users):
        await loss.know(user, f"cus_{number}")
    runs = [run(second, user, token_count=second) for user in users for second in range(60)]
    loss.back_up()
    await loss.record(*runs)
    await loss.claim()
    told = (await loss.lose()).splitlines()
    for number, user in enumerate(users):
        await loss.know(user, f"cus_{number}")
    await loss.record(*runs)

    shuffled = "\n".join((*sorted(told[:-1], key=lambda line: line[::-1]), told[-1]))
    reports = len(users) * 12

    assert await loss.adopt(shuffled, "--execute") == said(
        0, f"{reports} 0 0 {reports} {len(runs)}"
    )
    assert await loss.disagreeing() == []


async def test_report_that_no_event_could_carry_is_named_as_one_the_ledger_has_otherwise(
    loss: Loss, password: str
) -> None:
    """A row that was changed by hand stops the taking back of no other."""
    await loss.record(run(1), run(12))
    await loss.claim()
    told = await loss.told()
    name = loss.url.rpartition("/")[2]
    run_sql(loss.postgres.url(name, "usage_ingest_owner", password), CHANGE)

    code, lines = await loss.adopt(told)

    assert code == 1
    [(changed,)] = await loss.rows("SELECT identifier FROM usage_reports WHERE meter LIKE 'runs%'")
    assert lines[-1] == f"reports that the ledger has otherwise: 1 ({changed} 1)"
