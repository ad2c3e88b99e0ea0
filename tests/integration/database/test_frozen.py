"""Transactions that stay open, a frozen process's or a person's: all other work continues."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from local_stack.servers import Database as Server
from nexus_messaging.topology import (
    INTERNAL,
    TOOL_EXECUTED_QUEUE,
    USAGE_RECORDED_QUEUE,
    USER_CREATED_QUEUE,
    dead_letter_queue,
)
from support.events import report, tool_run, user_created
from support.freezing import freeze
from support.platform import Platform
from support.waiting import eventually

INGEST, REPORTER, PROVISIONER = "usage-ingest", "stripe-reporter", "customer-provisioner"

SLOW_INSERT = """
CREATE TABLE held (is_on boolean NOT NULL);
INSERT INTO held VALUES (true);
GRANT SELECT ON held TO usage_ingest;
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT is_on FROM held) THEN PERFORM pg_sleep(2); END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER hold AFTER INSERT ON usage_events FOR EACH STATEMENT EXECUTE FUNCTION hold();
"""
"""Delays an INSERT at the server until it was observed, so that its client can be frozen."""

INSERTING = """
SELECT count(*)::int FROM pg_stat_activity
 WHERE datname = current_database() AND query LIKE '%INSERT INTO usage_events%'
   AND wait_event = 'PgSleep'
"""

FOREIGN_INSERT = """
INSERT INTO usage_events (event_id, source, schema_version, digest, user_id, server_id, tool_name,
                          origin, status, readings, occurred_at, billing_state)
SELECT id, 'test/hub', 1, decode(repeat('00', 32), 'hex'), gen_random_uuid(), 's', 't', 'direct',
       'succeeded', '{"tool_call_executed": 1}', now(), 'waiting'
  FROM unnest($1::uuid[]) AS n(id)
"""

RECORDED = "SELECT count(*)::int FROM usage_events"
ANSWERED = "SELECT count(*)::int FROM meter_calls WHERE answered_at IS NOT NULL"
ANNOUNCED = "SELECT count(*)::int FROM user_profiles WHERE announced_generation = 1"


@asynccontextmanager
async def unbounded(
    postgres: Server, platform: Platform, service: str
) -> AsyncIterator[asyncpg.Connection]:
    """Open a superuser's session in a service's database, without any timeout."""
    path = urlsplit(platform.databases[service]).path
    url = urlsplit(postgres.superuser_url)._replace(path=path).geturl()
    session = await asyncpg.connect(url)
    try:
        yield session
    finally:
        await session.close()


@asynccontextmanager
async def holding(
    postgres: Server, platform: Platform, service: str
) -> AsyncIterator[asyncpg.Connection]:
    """Keep a transaction open while the context lasts; it is rolled back."""
    async with unbounded(postgres, platform, service) as session:
        transaction = session.transaction()
        await transaction.start()
        yield session
        await transaction.rollback()


@contextmanager
def frozen(platform: Platform, name: str) -> Iterator[None]:
    """Freeze a service's process while the context lasts."""
    pid = platform.services[name].pid
    assert pid is not None
    with freeze(pid):
        yield


async def number(session: asyncpg.Connection, query: str) -> int:
    """Return the one number that ``query`` selects."""
    return int(await session.fetchval(query))


async def reaches(session: asyncpg.Connection, query: str, least: int, *, within: float) -> None:
    """Wait until the number that ``query`` selects is at least ``least``."""
    await eventually(partial(number, session, query), lambda n: n >= least, within=within)


async def drained(platform: Platform, queue: str) -> None:
    """Wait until ``queue`` is empty; nothing may have been dead-lettered."""
    await eventually(partial(platform.vhost.depth, queue), lambda depth: depth == 0, within=60)
    assert await platform.vhost.depth(dead_letter_queue(queue)) == 0


async def healthy(platform: Platform, name: str) -> bool:
    """Return whether a process calls itself healthy."""
    status, _ = await platform.get(name, "healthz")
    return status == 200


@pytest.mark.timeout(240)
async def test_frozen_insert_of_a_process_blocks_no_other(
    platform: Platform, postgres: Server
) -> None:
    """Other runs are recorded meanwhile, its own within seconds, and each of them once."""
    same, others = [tool_run() for _ in range(50)], [tool_run() for _ in range(500)]
    platform.start(INGEST)
    async with unbounded(postgres, platform, "usage_ingest") as session:
        await session.execute(SLOW_INSERT)
        await platform.vhost.publish(*same)
        await reaches(session, INSERTING, 1, within=20)

        with frozen(platform, INGEST):
            await session.execute("UPDATE held SET is_on = false")
            platform.start_second(INGEST)
            await platform.vhost.publish(*same, *others)
            await reaches(session, RECORDED, len(others), within=30)
            await reaches(session, RECORDED, len(others) + len(same), within=60)
            assert await healthy(platform, f"{INGEST} 2")

        await drained(platform, TOOL_EXECUTED_QUEUE)
        assert await number(session, RECORDED) == len(others) + len(same)


@pytest.mark.timeout(240)
async def test_runs_locked_by_a_transaction_wait_and_others_pass(
    platform: Platform, postgres: Server
) -> None:
    """No budget is spent; they are recorded when the transaction ends."""
    same, others = [tool_run() for _ in range(20)], [tool_run() for _ in range(500)]
    mixed = [each for pair in zip(same, others, strict=False) for each in pair]
    platform.start(INGEST)
    async with unbounded(postgres, platform, "usage_ingest") as session:
        async with holding(postgres, platform, "usage_ingest") as holder:
            await holder.execute(FOREIGN_INSERT, [each.id for each in same])
            await platform.vhost.publish(*mixed, *others[len(same) :])
            await reaches(session, RECORDED, len(others), within=30)

            assert await number(session, RECORDED) == len(others)
            assert await healthy(platform, INGEST)
            assert "consumption_paused" not in platform.log(INGEST)
        await reaches(session, RECORDED, len(others) + len(same), within=60)
        await drained(platform, TOOL_EXECUTED_QUEUE)


@pytest.mark.timeout(240)
async def test_locked_journal_row_blocks_no_other_report(
    platform: Platform, postgres: Server
) -> None:
    """Its own report waits, and is known to be sent once the row is free."""
    platform.start(REPORTER)
    held, *others = [report(customer) for customer in await platform.customers(21)]
    async with unbounded(postgres, platform, "stripe_reporter") as session:
        await platform.vhost.publish(held, exchange=INTERNAL)
        await reaches(session, ANSWERED, 1, within=20)
        async with holding(postgres, platform, "stripe_reporter") as holder:
            await holder.execute("SELECT FROM meter_calls FOR UPDATE")
            await platform.vhost.publish(held, *others, exchange=INTERNAL)
            await reaches(session, ANSWERED, 21, within=15)

            assert await healthy(platform, REPORTER)
            assert "consumption_paused" not in platform.log(REPORTER)
        await drained(platform, USAGE_RECORDED_QUEUE)


@pytest.mark.timeout(240)
async def test_locked_profile_blocks_no_other_user(platform: Platform, postgres: Server) -> None:
    """Its own message waits; the other users get their customers."""
    created = [user_created(uuid4(), f"{each}@example.com") for each in range(21)]
    platform.start(PROVISIONER)
    async with unbounded(postgres, platform, "customer_provisioner") as session:
        await platform.vhost.publish(created[0])
        await reaches(session, ANNOUNCED, 1, within=20)
        async with holding(postgres, platform, "customer_provisioner") as holder:
            await holder.execute("SELECT FROM user_profiles FOR UPDATE")
            await platform.vhost.publish(*created)
            await reaches(session, ANNOUNCED, 21, within=30)

            assert await healthy(platform, PROVISIONER)
        await drained(platform, USER_CREATED_QUEUE)
