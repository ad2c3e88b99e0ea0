"""With a synchronous standby no message is acked before the standby has its rows."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest
from sqlalchemy import text

from customer_provisioner.profile import Create
from customer_provisioner.storage.statements import Step
from customer_provisioner.storage.writer import ProfileWriter
from local_stack.postgres import PostgresServer
from local_stack.sql import run_sql
from nexus_contracts.user_created import newest
from nexus_database import Database
from nexus_messaging.topology import TOOL_EXECUTED_QUEUE
from stripe_reporter.fence import Call
from stripe_reporter.reports import Report
from stripe_reporter.storage.journal import Journal
from stripe_reporter.stripe.responses import TABLE
from support.databases import make_database, opened
from support.events import provisioned, report, tool_run, user_created
from support.ingest import running_ingest
from support.standbys import Pair, commits_waiting, frozen, replicated
from support.vhost import Vhost
from support.waiting import eventually
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.reports import ReportAnswer, Reports

NOW = datetime.now(UTC)
RULES = BillingRules("tool_call_executed", None, frozenset({"succeeded"}))
COUNT = "SELECT count(*) FROM usage_events"

Again = Callable[[], Awaitable[object]]
Case = Callable[[Database], Awaitable[Again]]


async def run_that_is_recorded(database: Database) -> Again:
    """A redelivered run is a duplicate."""
    entry = Entry.of(tool_run(), RULES, NOW)
    return lambda: Ledger(database).record([entry])


async def outcome_that_is_applied(database: Database) -> Again:
    """A redelivered answer changes no report."""
    user = uuid4()
    await Accounts(database).apply(provisioned(user, "cus_1").data)
    run = tool_run(user, time=NOW - timedelta(minutes=1))
    await Ledger(database).record([Entry.of(run, RULES, NOW)])
    await Claims(database, window=timedelta(0), dimensions=()).claim(NOW)
    [leased] = (await Reports(database).lease(NOW)).reports
    answer = ReportAnswer(leased.report_id, "reported", NOW, None, ever_unknown=False)
    return lambda: Reports(database).answer([answer])


async def customer_that_is_stored(database: Database) -> Again:
    """A redelivered announcement of a customer changes nothing."""
    announcement = provisioned(uuid4(), "cus_2").data
    return lambda: Accounts(database).apply(announcement)


async def report_that_is_counted(database: Database) -> Again:
    """A redelivered report is answered from the journal, without a call."""
    sent = Report.of(report("cus_3").data)
    call = await Journal(database).claim(sent, NOW)
    assert isinstance(call, Call)
    accepted = next(row for row in TABLE if row.name == "accepted")
    await Journal(database).record(call, accepted, NOW)
    return lambda: Journal(database).claim(sent, NOW)


async def user_who_is_stored(database: Database) -> Again:
    """A redelivered user is already stored."""
    user = newest(user_created(uuid4()).data)
    return lambda: ProfileWriter(database).keep(user, NOW)


async def user_who_has_a_customer(database: Database) -> Again:
    """Nothing is left to do for a user who has a customer."""
    profiles, user = ProfileWriter(database), newest(user_created(uuid4()).data)
    await profiles.keep(user, NOW)
    step = await profiles.claim(user.user_id, NOW)
    assert isinstance(step, Create)
    await profiles.store(step.attempt, "cus_4", Step.CREATED, NOW)
    return lambda: profiles.claim(user.user_id, NOW)


CASES: Final[dict[Case, str]] = {
    run_that_is_recorded: "usage_ingest",
    outcome_that_is_applied: "usage_ingest",
    customer_that_is_stored: "usage_ingest",
    report_that_is_counted: "stripe_reporter",
    user_who_is_stored: "customer_provisioner",
    user_who_has_a_customer: "customer_provisioner",
}


@pytest.fixture(scope="module")
def pair(server_directory: Path) -> Iterator[Pair]:
    """Return a primary and its synchronous standby."""
    with replicated(server_directory / "pair") as made:
        yield made


@pytest.fixture(scope="module")
def urls(pair: Pair, password: str) -> dict[str, str]:
    """Return the URLs of the services' databases at the primary."""
    services = sorted(set(CASES.values()))
    return {each: asyncio.run(make_database(pair.primary, each, password)) for each in services}


@pytest.fixture
async def database(urls: dict[str, str], case: Case) -> AsyncIterator[Database]:
    """Return the case's database, as its service's role."""
    async with opened(urls[CASES[case]], size=5) as database:
        yield database


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_repetition_waits_for_the_standby(pair: Pair, database: Database, case: Case) -> None:
    """The first commit may have timed out before its rows were replicated."""
    again = await case(database)
    await again()

    with frozen(pair.standby):
        repeated = asyncio.ensure_future(again())
        await eventually(lambda: _waiting(pair.primary), lambda number: number == 1, within=10)
        assert not repeated.done()

    await repeated


async def _waiting(primary: PostgresServer) -> int:
    return await asyncio.to_thread(commits_waiting, primary)


async def test_run_not_replicated_survives_the_primarys_loss(
    vhost: Vhost, tmp_path: Path, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is committed at the primary alone, redelivered as a duplicate, and not acked."""
    monkeypatch.setattr("nexus_database.connecting.STATEMENT_TIMEOUT", 2.0)
    with replicated(tmp_path) as pair:
        url = await make_database(pair.primary, "usage_ingest", password)
        owner = pair.primary.url("usage_ingest", "usage_ingest_owner", password)
        await vhost.publish(tool_run())
        pair.standby.kill()
        async with recording(vhost, url):
            await eventually(
                lambda: asyncio.to_thread(run_sql, owner, COUNT), lambda rows: int(rows) == 1
            )
            # It is redelivered as a duplicate, and that commit waits like the first one.
            await eventually(lambda: _waiting(pair.primary), lambda number: number > 0)
        assert await vhost.depth(TOOL_EXECUTED_QUEUE) == 1

        pair.primary.kill()
        pair.standby.restart()
        pair.standby.promote()
        promoted = pair.standby.url("usage_ingest", "usage_ingest", password)
        async with recording(vhost, promoted) as database:
            recorded = await eventually(lambda: _recorded(database), lambda rows: rows > 0)
    assert recorded == 1


@asynccontextmanager
async def recording(vhost: Vhost, url: str) -> AsyncIterator[Database]:
    """Run usage-ingest on the database at ``url`` while the context lasts."""
    async with opened(url, size=5) as database, running_ingest(vhost, database):
        yield database


async def _recorded(database: Database) -> int:
    return int((await database.run(lambda c: c.execute(text(COUNT)))).scalar_one())
