"""Totals by hour: exact at every moment, whoever records, claims and folds, and whoever dies."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Row, text

from integration.usage_ingest.billed import answer, pending
from local_stack.servers import Database as PostgresServer
from local_stack.sql import run_sql
from nexus_database import Database
from support.commands import in_a_pipe
from support.databases import opened, url_of
from support.events import provisioned, tool_run
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules, ToolRun
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.reports import Reports
from usage_ingest.storage.totals import FOLD_USAGE, PARTS, TRY_LOCK, Totals

RULES = BillingRules("tool_call_executed", "tokens_used", frozenset({"succeeded"}))
HOUR = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER = HOUR + timedelta(hours=6)
USER = UUID(int=1)


async def rows(database: Database, query: str, **values: object) -> Sequence[Row[Any]]:
    """Run a query and return its rows."""
    return (await database.run(lambda c: c.execute(text(query), values))).all()


async def record(database: Database, *events: ToolRun) -> None:
    """Record events as if they had just happened."""
    await Ledger(database).record([Entry.of(each, RULES, LATER) for each in events])


async def claim(database: Database, seconds: int = 10) -> None:
    """Claim what is due, in windows of ``seconds``."""
    await Claims(database, window=timedelta(seconds=seconds), dimensions=()).claim(LATER)


async def differences(database: Database) -> list[Mapping[str, Any]]:
    """Return every difference of the totals from a scan."""
    found: list[Mapping[str, Any]] = []
    for part in PARTS:
        await Totals(database).compare(part, found.append)
    return found


async def fold_all(database: Database, most: int = 1_000) -> None:
    """Fold until nothing is left."""
    while await Totals(database).fold(most=most):
        pass


def superuser_url(postgres: PostgresServer, database: Database) -> str:
    """Return the superuser's URL of a test's database."""
    return f"{postgres.superuser_url.rpartition('/')[0]}/{database.engine.url.database}"


USAGE = "SELECT * FROM hourly_usage WHERE user_id = :user ORDER BY hour, server_id, tool_name"
AMOUNTS = "SELECT * FROM hourly_amounts ORDER BY account_id, meter, hour"


async def test_runs_are_totalled_by_hour_server_and_tool(database: Database) -> None:
    """Failed runs are runs, but no billable ones; the same is shown before and after a fold."""
    at = HOUR + timedelta(minutes=59, seconds=59)
    await record(
        database,
        tool_run(USER, time=HOUR, token_count=5),
        tool_run(USER, time=at, token_count=7),
        tool_run(USER, time=at, status="failed"),
        tool_run(USER, time=at, server_id="sql", tool_name="query"),
        tool_run(USER, time=HOUR + timedelta(hours=1)),
        tool_run(time=at),
    )

    before = await rows(database, USAGE, user=USER)
    await fold_all(database)

    assert [tuple(each) for each in before] == [
        (USER, HOUR, "sql", "query", 1, 1, 0),
        (USER, HOUR, "weather", "forecast", 3, 2, 12),
        (USER, HOUR + timedelta(hours=1), "weather", "forecast", 1, 1, 0),
    ]
    assert await rows(database, USAGE, user=USER) == before
    assert (await rows(database, "SELECT count(*) FROM usage_deltas"))[0][0] == 0
    assert await differences(database) == []


async def test_duplicate_run_is_totalled_once(database: Database) -> None:
    """In its own batch, and in a later one."""
    run = tool_run(USER, time=HOUR)

    await record(database, run, run)
    await record(database, run)
    await record(database, run, tool_run(USER, time=HOUR))

    assert [each.runs for each in await rows(database, USAGE, user=USER)] == [2]


async def test_amounts_are_totalled_by_account_meter_and_hour(database: Database) -> None:
    """A report's amount belongs to the hour of its earliest run, as at Stripe."""
    await Accounts(database).apply(provisioned(USER, "cus_one").data)
    await record(
        database,
        tool_run(USER, time=HOUR + timedelta(minutes=1), token_count=5),
        tool_run(USER, time=HOUR + timedelta(minutes=2), token_count=7),
        tool_run(USER, time=HOUR + timedelta(hours=2)),
    )
    await claim(database)

    before = await rows(database, AMOUNTS)
    await fold_all(database)

    assert [tuple(each) for each in before] == [
        (USER, "tokens_used", HOUR, 12),
        (USER, "tool_call_executed", HOUR, 2),
        (USER, "tool_call_executed", HOUR + timedelta(hours=2), 1),
    ]
    assert await rows(database, AMOUNTS) == before
    assert await differences(database) == []


async def test_superseded_report_counts_once_with_its_replacement(database: Database) -> None:
    """Its amount is taken back, and the report to the new customer has it."""
    await pending(database, USER, reports=2)
    reports = Reports(database)
    now = datetime.now(UTC)
    leased = (await reports.lease(now)).reports
    await fold_all(database)

    await reports.answer([answer(each, "rejected") for each in leased])
    await Accounts(database).apply(provisioned(USER, "cus_second", generation=2).data)
    swept = await Accounts(database).sweep(now)

    assert swept.superseded == 2
    assert [each.value for each in await rows(database, AMOUNTS)] == [2]
    await fold_all(database)
    assert await differences(database) == []


async def leave(_database: Database) -> None:
    """Fold nothing."""


@pytest.mark.parametrize("fold", [leave, fold_all])
async def test_period_is_a_sum_of_hours_and_exact_edges(
    database: Database, fold: Callable[[Database], Awaitable[None]]
) -> None:
    """Whatever its ends: within an hour, at full hours, over many, or the wrong way round."""
    await Accounts(database).apply(provisioned(USER, "cus_one").data)
    await Accounts(database).apply(provisioned(UUID(int=2), "cus_two").data)
    times = [HOUR + timedelta(minutes=20 * n, seconds=n % 2) for n in range(15)]
    await record(database, *(tool_run(USER, time=at, token_count=9) for at in times))
    await record(database, *(tool_run(UUID(int=2), time=at) for at in times))
    await claim(database, seconds=1)
    await fold(database)

    ends = [HOUR + timedelta(minutes=m) for m in (0, 20, 30, 60, 61, 100, 120, 180, 301)]
    for begin, end in itertools.product(ends, ends):
        [[amount]] = await rows(
            database,
            "SELECT amount_between(:user, 'tool_call_executed', :begin, :end)",
            user=USER,
            begin=begin,
            end=end,
        )
        assert amount == sum(begin <= at < end for at in times), (begin, end)


USERS = [UUID(int=n) for n in range(1, 6)]


async def record_batches(database: Database, seed: int) -> None:
    """Record batches over six hours; every other ``seed`` has the same event ids."""
    for batch in range(15):
        events = [
            tool_run(
                USERS[n % 5],
                time=HOUR + timedelta(minutes=7 * n + batch),
                tool_name=f"tool-{n % 3}",
                event_id=UUID(int=1_000 * (seed % 2) + 50 * batch + n),
                token_count=n,
            )
            for n in range(40)
        ]
        await record(database, *events)


async def fold_half_way(database: Database) -> None:
    """Fold as a process that dies before its commit."""
    async with database.engine.connect() as connection:
        await connection.execute(TRY_LOCK, {"part": "usage"})
        await connection.execute(FOLD_USAGE, {"most": 30})
        await connection.rollback()


async def require_equal(database: Database) -> None:
    """Fail if the totals are not what a scan finds."""
    assert await differences(database) == []


async def repeat(done: asyncio.Event, work: Callable[[], Awaitable[object]]) -> int:
    """Repeat ``work`` until all is ``done``; return how often."""
    times = 0
    while not done.is_set():
        await work()
        times += 1
    return times


async def test_totals_stay_exact_with_many_recorders_and_folders(database: Database) -> None:
    """At every moment and at the end, with claims, duplicates, and folds that die half-way."""
    for user in USERS:
        await Accounts(database).apply(provisioned(user, f"cus_{user.int}").data)
    done = asyncio.Event()

    async with opened(url_of(database, *login(database)), size=9) as own:
        others = (
            lambda: claim(own),
            lambda: claim(own),
            lambda: Totals(own).fold(most=20),
            lambda: Totals(own).fold(most=50),
            lambda: fold_half_way(own),
            lambda: require_equal(own),
        )
        tasks = [asyncio.create_task(repeat(done, each)) for each in others]
        await asyncio.gather(*(record_batches(own, seed) for seed in range(4)))
        done.set()
        times = await asyncio.gather(*tasks)

    await claim(database)
    await fold_all(database)
    assert all(times), times
    assert await differences(database) == []
    [[runs]] = await rows(database, "SELECT sum(runs) FROM folded_usage")
    assert runs == 1_200


async def test_one_process_folds_at_a_time(database: Database) -> None:
    """The others leave it to that one, and do not wait."""
    await record(database, tool_run(USER, time=HOUR))
    async with database.engine.connect() as folding:
        await folding.execute(TRY_LOCK, {"part": "usage"})

        async with asyncio.timeout(5):
            assert not await Totals(database).fold()

        assert (await rows(database, "SELECT count(*) FROM usage_deltas"))[0][0] == 1


async def test_fold_takes_a_bounded_portion(database: Database) -> None:
    """And at least one delta, however many runs it has."""
    for _ in range(3):
        await record(database, *(tool_run(USER, time=HOUR) for _ in range(10)))

    assert await Totals(database).fold(most=15)

    assert (await rows(database, "SELECT count(*) FROM usage_deltas"))[0][0] == 1
    assert await Totals(database).fold(most=1)
    assert not await Totals(database).fold(most=1)
    assert [each.runs for each in await rows(database, USAGE, user=USER)] == [30]


SPOIL = """
UPDATE folded_usage SET runs = runs + 2, tokens = 7;
INSERT INTO folded_usage
VALUES ('00000000-0000-0000-0000-000000000009', '2026-03-01 12:00Z', 's', 't', 1, 1, 5);
DELETE FROM folded_amounts
"""


async def test_comparison_names_each_difference(
    database: Database, postgres: PostgresServer
) -> None:
    """Whether the totals have too much, too little, or what the ledger has not at all."""
    await pending(database, USER)
    await fold_all(database)
    run_sql(superuser_url(postgres, database), SPOIL)

    found = await differences(database)

    usage = {each["user_id"]: each for each in found if "user_id" in each}
    [amount] = [each for each in found if "account_id" in each]
    assert usage.keys() == {USER, UUID(int=9)}
    assert (usage[USER]["runs"], usage[USER]["total_runs"]) == (1, 3)
    assert (usage[UUID(int=9)]["runs"], usage[UUID(int=9)]["total_runs"]) == (0, 1)
    assert (amount["account_id"], amount["value"], amount["total_value"]) == (USER, 1, 0)


async def test_rebuild_mends_totals_while_usage_is_recorded(
    database: Database, postgres: PostgresServer
) -> None:
    """Deltas stay what they are; a row too many has zeros."""
    await pending(database, USER)
    await fold_all(database)
    await record(database, tool_run(USER, time=HOUR))
    run_sql(superuser_url(postgres, database), SPOIL)

    mended = [await Totals(database).rebuild(part) for part in PARTS]

    assert mended == [2, 1]
    assert await differences(database) == []
    await fold_all(database)
    assert await differences(database) == []


async def test_ledger_from_before_the_totals_has_none_until_they_are_rebuilt(
    database: Database, postgres: PostgresServer
) -> None:
    """Its progress says so until then, and what is recorded meanwhile is counted once."""
    await pending(database, USER)
    forget = """
        DELETE FROM usage_deltas; DELETE FROM amount_deltas;
        UPDATE totals_progress SET as_of = NULL
    """
    run_sql(superuser_url(postgres, database), forget)
    totals = Totals(database)
    await record(database, tool_run(USER, time=HOUR))
    await totals.fold()
    unknown = [each.age for each in await totals.progress()]

    for part in PARTS:
        await totals.rebuild(part)
    await totals.fold()

    assert unknown == [float("inf")] * 2
    assert all(each.age < 60 for each in await totals.progress())
    assert await differences(database) == []


def login(database: Database) -> tuple[str | None, str | None]:
    """Return the login of an open database."""
    url = database.engine.url
    return url.username, url.password


async def command(database: Database, *arguments: str) -> tuple[int, list[str]]:
    """Run `usage-ingest totals`; return its exit code and the lines that it prints."""
    shown = await in_a_pipe("usage_ingest", "totals", *arguments, DATABASE_URL=url_of(database))
    return shown.code, shown.output.splitlines()


async def test_command_names_differences_and_mends_them(
    database: Database, postgres: PostgresServer
) -> None:
    """It exits with 1 while there are any."""
    await pending(database, USER)
    await fold_all(database)
    right = await command(database, "--verify")
    run_sql(superuser_url(postgres, database), "UPDATE folded_usage SET runs = 3")

    wrong = await command(database, "--verify")
    mended = await command(database, "--rebuild", "--verify")

    assert right == (0, ["usage: no differences", "amounts: no differences"])
    assert wrong[0] == 1
    assert f"{USER} " in wrong[1][0]
    assert "weather forecast: runs 1 in the ledger, 3 in the totals" in wrong[1][0]
    assert wrong[1][1:] == ["usage: 1 differences", "amounts: no differences"]
    assert mended[0] == 0
    assert mended[1][0] == "usage: 1 rows mended"


async def test_command_fails_while_totals_have_yet_to_be_rebuilt(
    database: Database, postgres: PostgresServer
) -> None:
    """It says what to do."""
    known = await command(database)
    run_sql(superuser_url(postgres, database), "UPDATE totals_progress SET as_of = NULL")

    unknown = await command(database)

    assert known[0] == 0
    assert unknown[0] == 1
    assert "run usage-ingest totals --rebuild" in unknown[1][0]
