"""Several processes of usage-ingest on one queue and one ledger."""

import random
from contextlib import AsyncExitStack
from uuid import uuid4

import aiormq
from sqlalchemy import text

from local_stack.servers import Database as PostgresServer
from local_stack.sql import run_sql
from nexus_database import Database
from nexus_messaging.topology import EVENTS, TOOL_EXECUTED_QUEUE
from support.backlog import Example, publish_copy
from support.databases import opened, url_of
from support.events import past_run, provisioned
from support.ingest import running_ingest
from support.vhost import Vhost
from support.waiting import eventually
from usage_ingest.storage.accounts import Accounts

CONSUMERS = 4
RUNS = 2_000
DEADLOCKS_AT_ONCE = "deadlock_timeout = '5ms'"
"""With the default, a second, `lock_timeout` would end a deadlock before it is detected."""

REPORTED = text("SELECT coalesce(sum(event_count), 0) FROM usage_reports WHERE state <> 'pending'")
RECORDED = text("SELECT count(*) FROM usage_events")
DEADLOCKS = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")


async def test_four_consumers_record_each_run_once_without_deadlocks(
    vhost: Vhost, database: Database, postgres: PostgresServer, password: str
) -> None:
    """Every run is queued four times, shuffled: batches share ids, each in an order of its own."""
    name = str(database.engine.url.database)
    run_sql(postgres.superuser_url, f"ALTER DATABASE {name} SET {DEADLOCKS_AT_ONCE}")
    user = uuid4()
    await Accounts(database).apply(provisioned(user, "cus_1").data)
    examples = [Example.of(past_run(user)) for _ in range(RUNS)]

    await pile_up_shuffled(vhost, examples * CONSUMERS)

    async with AsyncExitStack() as stack:
        url = url_of(database, "usage_ingest", password)
        for _ in range(CONSUMERS):
            its_own = await stack.enter_async_context(opened(url, 5))
            await stack.enter_async_context(running_ingest(vhost, its_own))

        async def left() -> tuple[int, int]:
            reported = await database.run(lambda c: c.scalar(REPORTED))
            return await vhost.depth(TOOL_EXECUTED_QUEUE), RUNS - int(reported or 0)

        await eventually(left, lambda left: left == (0, 0), within=60)

    # A session tells its statistics when it ends at the latest.
    assert await database.run(lambda c: c.scalar(DEADLOCKS)) == 0
    assert await database.run(lambda c: c.scalar(RECORDED)) == RUNS


async def pile_up_shuffled(vhost: Vhost, examples: list[Example]) -> None:
    """Queue examples under their own ids, in another order."""
    random.Random(0).shuffle(examples)  # noqa: S311 - no secret
    async with await aiormq.connect(vhost.admin_url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        for each in examples:
            await publish_copy(channel, each, each.id.decode(), exchange=EVENTS)
        await channel.queue_declare(TOOL_EXECUTED_QUEUE, passive=True)  # answered after the last
