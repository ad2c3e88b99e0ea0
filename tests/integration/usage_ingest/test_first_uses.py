"""Unique tools: one unit at the first billable use by an account in a period."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from integration.usage_ingest.priced import USER, PricedLedger
from nexus_contracts import UserAssigned
from nexus_database import Database
from support.events import tool_run
from usage_ingest.metering import ToolRun
from usage_ingest.storage.accounts import Accounts

NOW = datetime(2026, 12, 20, tzinfo=UTC)
TEAM = UUID(int=101)


def on(month: int, day: int, tool: str = "a", **fields: Any) -> ToolRun:
    """Return a run on a day of 2026."""
    user = fields.pop("user", USER)
    return tool_run(user, time=datetime(2026, month, day, 12, tzinfo=UTC), tool_name=tool, **fields)


@pytest.fixture
async def ledger(database: Database) -> PricedLedger:
    """Return a ledger with a customer whose plan counts unique tools."""
    ledger = PricedLedger(database)
    await ledger.customer()
    await ledger.subscribe("team")
    return ledger


async def claim(ledger: PricedLedger, *runs: ToolRun) -> int:
    """Record and claim runs; return how many tools were counted by then."""
    await ledger.record(*runs, now=NOW)
    await ledger.claims().claim(NOW)
    found = await ledger.run_sql("SELECT sum(value) FROM usage_reports WHERE meter = 'tools'")
    return int(found[0][0] or 0)


async def test_each_tool_counts_once_in_a_month(ledger: PricedLedger) -> None:
    """Further runs of the month add nothing, in the same claim or a later one."""
    assert await claim(ledger, on(12, 1), on(12, 1), on(12, 2, "b"), on(12, 3)) == 2
    assert await claim(ledger, on(12, 4), on(12, 5, "b")) == 2
    assert await claim(ledger, on(12, 6, server_id="other")) == 3


async def test_a_tool_counts_again_in_the_next_month(ledger: PricedLedger) -> None:
    """Also if one claim has runs of both, and whichever comes first."""
    assert await claim(ledger, on(11, 30), on(12, 1)) == 2
    assert await claim(ledger, on(12, 2), on(11, 29)) == 2


async def test_the_report_says_that_no_run_is_claimed_for_it(ledger: PricedLedger) -> None:
    """A restored ledger matches no runs to it."""
    await claim(ledger, on(12, 1), on(12, 1, "b"))

    reports = await ledger.reports()

    assert ("tools", 2, 2, True) in reports
    assert ("runs", 2, 2, False) in reports
    claims = await ledger.run_sql("SELECT count(DISTINCT claim_id), count(*) FROM usage_reports")
    assert claims == [(1, 2)]


async def test_a_plan_without_the_meter_counts_no_tools(ledger: PricedLedger) -> None:
    """Nor does it use up the first use for a plan that does."""
    await ledger.subscribe("free")
    before = await claim(ledger, on(12, 1))
    await ledger.subscribe("team")

    assert (before, await claim(ledger, on(12, 2))) == (0, 1)


async def test_an_organisation_counts_a_tool_once_for_all_its_users(ledger: PricedLedger) -> None:
    """The account pays, whoever of its users is first."""
    users = [UUID(int=number) for number in (11, 12, 13)]
    await ledger.customer(TEAM, "cus_team")
    await ledger.subscribe("team", TEAM)
    for revision, user in enumerate(users, 1):
        since = datetime(2026, 1, 1, tzinfo=UTC)
        await Accounts(ledger.database).assign(
            UserAssigned(user_id=user, account_id=TEAM, since=since, revision=revision)
        )

    assert await claim(ledger, *(on(12, 1, user=user) for user in users)) == 1


async def test_an_expired_run_takes_no_first_use(ledger: PricedLedger) -> None:
    """It is not billed, so the next one is the first."""
    assert await claim(ledger, on(11, 1), on(11, 30)) == 1


async def test_stripes_period_counts_once_it_is_known(ledger: PricedLedger) -> None:
    """From the middle of a month to that of the next."""
    period = datetime(2026, 11, 15, tzinfo=UTC), datetime(2026, 12, 15, tzinfo=UTC)
    await ledger.subscribe("team", period=period)

    assert await claim(ledger, on(11, 20), on(12, 10)) == 1
    assert await claim(ledger, on(12, 16)) == 2


async def test_an_overlap_of_month_and_period_is_charged_once(ledger: PricedLedger) -> None:
    """What was counted in the month is not counted again in a period that shares days with it."""
    counted = await claim(ledger, on(11, 18))
    period = datetime(2026, 11, 15, tzinfo=UTC), datetime(2026, 12, 15, tzinfo=UTC)
    await ledger.subscribe("team", period=period)

    assert counted == 1
    assert await claim(ledger, on(11, 20), on(12, 10)) == 1
    assert await claim(ledger, on(12, 16)) == 2


async def test_a_period_that_is_announced_late_is_expected(ledger: PricedLedger) -> None:
    """Runs before the announcement and after it are of one period."""
    first = datetime(2026, 10, 15, tzinfo=UTC), datetime(2026, 11, 15, tzinfo=UTC)
    await ledger.subscribe("team", period=first)
    before = await claim(ledger, on(11, 16))
    await ledger.subscribe("team", period=(first[1], datetime(2026, 12, 15, tzinfo=UTC)))

    assert (before, await claim(ledger, on(12, 10))) == (1, 1)


async def test_many_claims_at_once_count_each_tool_once(ledger: PricedLedger) -> None:
    """None waits for another in a circle, whatever the order of their tools."""
    tools = [f"tool-{number}" for number in range(40)]
    runs = [on(12, 1 + n % 18, tool) for n in range(10) for tool in tools]
    await ledger.record(*runs, now=NOW)

    async def process() -> None:
        while await _claimed(ledger):
            pass

    await asyncio.wait_for(asyncio.gather(*(process() for _ in range(6))), 60)

    assert await ledger.run_sql(
        "SELECT meter, sum(value) FROM usage_reports GROUP BY meter ORDER BY meter"
    ) == [("runs", 400), ("tools", 40)]


async def test_no_tool_counts_twice_while_periods_are_learned(ledger: PricedLedger) -> None:
    """Claims that know different periods of an account still see what the others have counted."""
    tools = [f"tool-{number}" for number in range(30)]
    runs = [on(11 + n % 2, 16 + n % 14, tool) for n in range(20) for tool in tools]
    runs = [run for run in runs if run.time < NOW]
    await ledger.record(*runs, now=NOW)
    begins = datetime(2026, 11, 15, tzinfo=UTC)

    async def learn() -> None:
        for day in range(15, 25):
            period = begins + timedelta(days=day - 15), begins + timedelta(days=day + 15)
            await ledger.subscribe("team", period=period)

    async def process() -> None:
        while await _claimed(ledger):
            pass

    await asyncio.wait_for(asyncio.gather(learn(), *(process() for _ in range(5))), 60)

    overlapping = await ledger.run_sql(
        "SELECT count(*) FROM first_uses a JOIN first_uses b USING (account_id, tool_name)"
        " WHERE a.period_start < b.period_start AND a.period_end > b.period_start"
    )
    unseen = await ledger.run_sql(
        "SELECT count(*) FROM usage_events e WHERE NOT EXISTS (SELECT FROM first_uses f"
        " WHERE f.tool_name = e.tool_name AND f.period_start < e.occurred_at + interval '31 days'"
        " AND f.period_end > e.occurred_at - interval '31 days')"
    )
    assert (overlapping, unseen) == ([(0,)], [(0,)])


async def _claimed(ledger: PricedLedger) -> int:
    return (await ledger.claims().claim(NOW, most=37)).events
