"""Taking back beside others: a second command, other dimensions, the next window, an old doubt."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from integration.usage_ingest.losses import LATER, MINUTE, Loss
from local_stack.servers import Database as PostgresServer
from nexus_contracts import CallRecord, read_call_record
from rig.events import tool_run
from usage_ingest.adoptions import Adoptions
from usage_ingest.metering import ToolRun
from usage_ingest.reports import Answer, Reports

ONE = UUID(int=1)
WINDOW = timedelta(seconds=10)


@pytest.fixture
async def loss(
    postgres: PostgresServer, clone: Callable[[str], Awaitable[str]], tmp_path: Path
) -> AsyncIterator[Loss]:
    """Return a ledger with one customer, backed up before anything was recorded."""
    fresh = Loss(postgres, await clone("usage_ingest"), tmp_path)
    await fresh.know(ONE, "cus_one")
    fresh.back_up()
    yield fresh
    await fresh.database.close()


def run(second: int) -> ToolRun:
    """Return a run of the minute."""
    return tool_run(ONE, time=MINUTE + timedelta(seconds=second))


def records(told: str) -> list[CallRecord]:
    """Return the calls of a list."""
    read = [read_call_record(line) for line in told.splitlines()]
    return [each for each in read if isinstance(each, CallRecord)]


def adoptions(loss: Loss) -> Adoptions:
    """Return what takes back."""
    return Adoptions(loss.database, window=WINDOW, execute=True)


async def test_commands_at_once_put_each_report_back_once(loss: Loss) -> None:
    """They wait for each other: the second finds what the first put back."""
    for minute in range(-60, 0):
        await loss.record(run(60 * minute))
    await loss.claim()
    calls = records(await loss.lose())

    returned = await asyncio.gather(*(adoptions(loss).put_back(calls) for _ in range(4)))

    assert sorted(each.put_back for each in returned) == [0, 0, 0, len(calls)]
    assert sorted(each.known for each in returned) == [0, *[len(calls)] * 3]


async def test_doubt_of_the_journal_is_taken_back_with_its_report(loss: Loss) -> None:
    """A report that may have been counted is not made anew for the next customer."""
    await loss.record(run(1))
    await loss.claim()
    [(report,)] = await loss.rows("SELECT report_id FROM usage_reports")
    loss.word = {report: {"state": "unknown", "ever_unknown": True}}
    calls = records(await loss.lose())
    await adoptions(loss).put_back(calls)

    refusal = Answer(report, "rejected", LATER, "no_such_customer", ever_unknown=False)
    await Reports(loss.database).answer([refusal])
    await loss.know(ONE, "cus_two", 2)

    assert await loss.sweep() == 0


async def test_run_at_the_border_belongs_to_the_next_window(loss: Loss) -> None:
    """It was never counted: no report that lacks its run takes it."""
    await loss.record(run(1))
    await loss.claim()
    calls = records(await loss.lose())
    await adoptions(loss).put_back(calls)
    await loss.record(run(10))

    matched = await adoptions(loss).match(calls)

    assert (matched.claimed, matched.missing) == (0, {"cus_one": 1})
    assert await loss.claim() == 1


async def test_no_run_is_counted_to_claims_of_unlike_dimensions(loss: Loss) -> None:
    """The setting was changed in a window; what one claim was offered in vain is said to lack."""
    first, second, third = run(1), run(2), run(3)
    await loss.record(first, third)
    await loss.claim()
    loss.dimensions = ("tool_name",)
    await loss.record(second)
    await loss.claim()
    calls = records(await loss.lose())
    await adoptions(loss).put_back(calls)
    await loss.record(first, second, third)

    at_first = await adoptions(loss).match(calls)
    await adoptions(loss).match(calls)

    assert at_first.claimed + at_first.missing.total() == 3
    assert await loss.disagreeing() == []
