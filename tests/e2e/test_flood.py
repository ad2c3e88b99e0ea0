"""A flood of invalid messages: it is stopped or held back, and resumed by a signal."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import cycle, islice
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from nexus_database import Database
from nexus_messaging.sources import KNOWN_AFTER
from nexus_messaging.topology import (
    TOOL_EXECUTED_QUEUE,
    USER_CREATED_QUEUE,
    dead_letter_queue,
)
from support.events import provisioned, tool_run, user_created
from support.platform import Platform
from support.vhost import bad_message, message
from support.waiting import eventually

SMALL: Mapping[str, str] = {"DEAD_LETTER_WINDOW": "100"}
LIMIT = 51
"""Dead letters until a queue is stopped, or until a source is held back."""

BAD = "hub/bad"
PAIRS = 250
PAUSE = 0.01
"""Seconds between two pairs of a good and a bad message."""


async def remark(platform: Platform, service: str) -> str | None:
    """Return the remark of `/readyz` on a service's consumption."""
    status, body = await platform.get(service, "readyz")
    assert status == 200, body
    found = json.loads(body).get("remarks", {}).get("consumption")
    return None if found is None else str(found)


async def count(platform: Platform, table: str) -> int:
    """Count the rows of a table of usage-ingest."""
    return await platform.number("usage_ingest", f"SELECT count(*) FROM {table}")  # noqa: S608 - the tests' own names


async def flood(
    platform: Platform,
    number: int,
    event_type: str,
    sources: Sequence[str | None] = ("hub/a", "hub/b"),
) -> None:
    """Publish invalid messages, of each source in turn."""
    async with platform.vhost.channel("publisher") as channel:
        exchange = await channel.get_exchange("events", ensure=False)
        for source in islice(cycle(sources), number):
            await exchange.publish(bad_message(source, event_type), event_type)


async def delays(platform: Platform, sources: Sequence[str | None]) -> list[float]:
    """Publish valid and invalid messages in turn; return each valid one's seconds to its row."""
    published: dict[UUID, float] = {}
    seen: dict[UUID, float] = {}
    ledger = Database(platform.databases["usage_ingest"], name="test")

    async def look() -> int:
        query = text("SELECT event_id FROM usage_events WHERE source = 'hub/good'")
        rows = await ledger.run(lambda connection: connection.execute(query))
        now = time.monotonic()
        for (event_id,) in rows:
            seen.setdefault(event_id, now)
        return len(seen)

    looking = asyncio.create_task(eventually(look, lambda rows: rows == PAIRS, within=60))
    try:
        async with platform.vhost.channel("publisher") as channel:
            exchange = await channel.get_exchange("events", ensure=False)
            for source in islice(cycle(sources), PAIRS):
                good = tool_run(source="hub/good")
                published[good.id] = time.monotonic()
                await exchange.publish(message(good), good.type)
                await exchange.publish(bad_message(source, good.type), good.type)
                await asyncio.sleep(PAUSE)
        await looking
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
        await ledger.close()
    return sorted(seen[event_id] - at for event_id, at in published.items())


def resume(platform: Platform, service: str) -> None:
    """Send SIGUSR1, as the runbook says."""
    pid = platform.services[service].pid
    assert pid is not None
    os.kill(pid, signal.SIGUSR1)


async def test_flood_stops_one_queue_until_a_signal(platform: Platform) -> None:
    """The service stays healthy, ready and consumes its other queues; one log line reports it."""
    platform.settings |= SMALL
    platform.start("usage-ingest")
    vhost, dead = platform.vhost, dead_letter_queue(TOOL_EXECUTED_QUEUE)
    await vhost.publish(tool_run())
    await flood(platform, 90, "tool.executed.v1")
    await vhost.publish(tool_run(), tool_run())

    stopped = await eventually(lambda: remark(platform, "usage-ingest"), bool)
    await vhost.publish(provisioned(uuid4(), "cus_1"), exchange="internal")
    await eventually(lambda: count(platform, "billing_accounts"), lambda rows: rows == 1)
    await eventually(lambda: vhost.depth(TOOL_EXECUTED_QUEUE), lambda depth: depth == 41)
    status, _ = await platform.get("usage-ingest", "healthz")
    _, metrics = await platform.get("usage-ingest", "metrics")

    assert stopped == (
        f"{TOOL_EXECUTED_QUEUE} is stopped: 51 of the last 52 messages were dead-lettered,"
        " most of them as invalid"
    )
    assert status == 200
    assert f'usage_ingest_consumption_stopped{{queue="{TOOL_EXECUTED_QUEUE}"}} 1.0' in metrics
    assert await vhost.depth(dead) == LIMIT
    assert await count(platform, "usage_events") == 1
    resume(platform, "usage-ingest")
    await eventually(lambda: count(platform, "usage_events"), lambda rows: rows == 3)
    await eventually(lambda: vhost.depth(dead), lambda depth: depth == 90)
    assert await remark(platform, "usage-ingest") is None
    assert platform.log("usage-ingest").count('"consumption_stopped"') == 1


async def test_restart_of_a_stopped_service_resumes_its_queue(platform: Platform) -> None:
    """SIGTERM ends it at once, as nothing is unacknowledged; the new process counts from zero."""
    platform.settings |= SMALL
    platform.start("usage-ingest")
    ingest = platform.services["usage-ingest"]
    await flood(platform, LIMIT + 9, "tool.executed.v1")
    await platform.vhost.publish(tool_run())
    await eventually(lambda: remark(platform, "usage-ingest"), bool)

    ingest.terminate()
    assert ingest.wait_for_exit(5)
    ingest.launch()

    await eventually(lambda: count(platform, "usage_events"), lambda rows: rows == 1, within=60)
    dead = dead_letter_queue(TOOL_EXECUTED_QUEUE)
    await eventually(lambda: platform.vhost.depth(dead), lambda depth: depth == LIMIT + 9)


async def test_flood_of_users_stops_the_queue_until_a_signal(platform: Platform) -> None:
    """The same limit holds for a queue whose messages are consumed one at a time."""
    platform.settings |= SMALL
    platform.start("customer-provisioner")
    vhost, dead = platform.vhost, dead_letter_queue(USER_CREATED_QUEUE)
    await flood(platform, 80, "user.created.v1")
    await vhost.publish(user_created(uuid4()))

    stopped = await eventually(lambda: remark(platform, "customer-provisioner"), bool)
    await eventually(lambda: vhost.depth(USER_CREATED_QUEUE), lambda depth: depth == 30)

    assert str(stopped).startswith(f"{USER_CREATED_QUEUE} is stopped: 51 of")
    assert await vhost.depth(dead) == LIMIT
    resume(platform, "customer-provisioner")
    await eventually(lambda: vhost.depth(dead), lambda depth: depth == 80)
    await eventually(lambda: customers(platform), lambda made: made == 1)


@pytest.mark.parametrize("service", ["usage-ingest", "stripe-reporter", "customer-provisioner"])
async def test_resume_signal_without_a_stop_changes_nothing(
    platform: Platform, service: str
) -> None:
    """The signal ends the process of no service."""
    platform.start(service)

    resume(platform, service)

    async def log() -> str:
        return platform.log(service)

    await eventually(log, lambda log: "resume_asked_for" in log)
    assert platform.services[service].ready


async def customers(platform: Platform) -> int:
    """Return how many customers Stripe has."""
    query = "SELECT count(*) FROM user_profiles WHERE stripe_customer_id IS NOT NULL"
    return await platform.number("customer_provisioner", query)


@pytest.mark.parametrize(
    ("sources", "named"),
    [
        ([BAD], BAD),
        ([None], "unknown sources"),
        ([f"hub/{number}" for number in range(PAIRS)], "unknown sources"),
    ],
    ids=["one name", "unreadable", "a name for each message"],
)
async def test_valid_runs_beside_a_flood_are_recorded_within_1_s(
    platform: Platform, sources: Sequence[str | None], named: str
) -> None:
    """Half of the traffic is invalid; one window of it is dead-lettered, the rest waits."""
    platform.settings |= SMALL
    platform.start("usage-ingest")
    await platform.vhost.publish(*(tool_run(source=BAD) for _ in range(KNOWN_AFTER)))
    await eventually(lambda: count(platform, "usage_events"), lambda rows: rows == KNOWN_AFTER)

    took = await delays(platform, sources)

    assert took[len(took) * 99 // 100] < 1, took
    dead = dead_letter_queue(TOOL_EXECUTED_QUEUE)
    assert await platform.vhost.depth(dead) == LIMIT
    held = f"{TOOL_EXECUTED_QUEUE} holds back dead letters of {named} ("
    assert str(await remark(platform, "usage-ingest")).startswith(held)
    _, metrics = await platform.get("usage-ingest", "metrics")
    assert f'usage_ingest_sources_held_back{{queue="{TOOL_EXECUTED_QUEUE}"}} 1.0' in metrics
    assert platform.log("usage-ingest").count('"source_held_back"') == 1
    resume(platform, "usage-ingest")
    await eventually(lambda: remark(platform, "usage-ingest"), lambda held: held is None)
