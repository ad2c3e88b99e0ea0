"""A flood of bad messages, as an operator meets it: stopped or held back, resumed by a signal."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import cycle, islice
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
from sqlalchemy import text

from nexus_database import Database
from nexus_messaging.sources import KNOWN_AFTER
from nexus_messaging.topology import (
    TOOL_EXECUTED_QUEUE,
    USER_CREATED_QUEUE,
    dead_letter_queue,
)
from rig.events import provisioned, tool_run, user_created
from rig.platform import Platform
from rig.vhost import bad_message, message
from rig.waiting import eventually

SMALL: Mapping[str, str] = {"DEAD_LETTER_WINDOW": "100"}
MOST = 51
"""Dead letters of one stop, or of one source that is held back."""

BAD = "hub/bad"
PAIRS = 250
PAUSE = 0.01
"""Seconds between two pairs of a good and a bad message."""


async def get(platform: Platform, service: str, path: str) -> tuple[int, str]:
    """Ask a service over HTTP."""
    url = f"{platform.services[service].url}/{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def remark(platform: Platform, service: str) -> str | None:
    """Return what `/readyz` remarks on a service's consumption."""
    status, body = await get(platform, service, "readyz")
    assert status == 200, body
    told: dict[str, Any] = json.loads(body)
    found = told.get("remarks", {}).get("consumption")
    return None if found is None else str(found)


async def count(platform: Platform, table: str) -> int:
    """Count the rows of a table of usage-ingest."""
    rows = await platform.rows("usage_ingest", f"SELECT count(*)::int FROM {table}")  # noqa: S608 - the tests' own names
    return int(str(rows[0][0]))


async def flood(
    platform: Platform,
    number: int,
    event_type: str,
    sources: Sequence[str | None] = ("hub/a", "hub/b"),
) -> None:
    """Publish bad messages, of each source in turn."""
    async with platform.vhost.channel("publisher") as channel:
        exchange = await channel.get_exchange("events", ensure=False)
        for source in islice(cycle(sources), number):
            await exchange.publish(bad_message(source, event_type), event_type)


async def delays(platform: Platform, sources: Sequence[str | None]) -> list[float]:
    """Publish good and bad messages by turns; return the seconds from each good one to its row."""
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
    """Send the signal that the runbook names."""
    pid = platform.services[service].pid
    assert pid is not None
    os.kill(pid, signal.SIGUSR1)


async def test_a_flood_stops_one_queue_is_told_everywhere_and_resumed_by_a_signal(
    platform: Platform,
) -> None:
    """The service is well, ready and at work on its other queues; the log has one line of it."""
    platform.settings |= SMALL
    platform.start("usage-ingest")
    vhost, dead = platform.vhost, dead_letter_queue(TOOL_EXECUTED_QUEUE)
    await vhost.publish(tool_run())
    await flood(platform, 90, "tool.executed.v1")
    await vhost.publish(tool_run(), tool_run())

    told = await eventually(lambda: remark(platform, "usage-ingest"), bool)
    await vhost.publish(provisioned(uuid4(), "cus_1"), exchange="internal")
    await eventually(lambda: count(platform, "billing_accounts"), lambda rows: rows == 1)
    await eventually(lambda: vhost.depth(TOOL_EXECUTED_QUEUE), lambda depth: depth == 41)
    status, _ = await get(platform, "usage-ingest", "healthz")
    _, metrics = await get(platform, "usage-ingest", "metrics")

    assert told == (
        f"{TOOL_EXECUTED_QUEUE} is stopped: 51 of the last 52 messages were dead-lettered,"
        " most of them as invalid"
    )
    assert status == 200
    assert f'usage_ingest_consumption_stopped{{queue="{TOOL_EXECUTED_QUEUE}"}} 1.0' in metrics
    assert await vhost.depth(dead) == MOST
    assert await count(platform, "usage_events") == 1
    resume(platform, "usage-ingest")
    await eventually(lambda: count(platform, "usage_events"), lambda rows: rows == 3)
    await eventually(lambda: vhost.depth(dead), lambda depth: depth == 90)
    assert await remark(platform, "usage-ingest") is None
    assert platform.log("usage-ingest").count('"consumption_stopped"') == 1


async def test_a_stopped_service_ends_at_once_and_goes_on_after_a_restart(
    platform: Platform,
) -> None:
    """SIGTERM finds nothing in hand; the new process begins with a clean slate."""
    platform.settings |= SMALL
    platform.start("usage-ingest")
    ingest = platform.services["usage-ingest"]
    await flood(platform, MOST + 9, "tool.executed.v1")
    await platform.vhost.publish(tool_run())
    await eventually(lambda: remark(platform, "usage-ingest"), bool)

    ingest.terminate()
    assert ingest.wait_for_exit(5)
    ingest.launch()

    await eventually(lambda: count(platform, "usage_events"), lambda rows: rows == 1, within=60)
    dead = dead_letter_queue(TOOL_EXECUTED_QUEUE)
    await eventually(lambda: platform.vhost.depth(dead), lambda depth: depth == MOST + 9)


async def test_a_flood_of_users_is_stopped_and_resumed_alike(platform: Platform) -> None:
    """A queue whose messages are handled one by one keeps the same rule."""
    platform.settings |= SMALL
    platform.start("customer-provisioner")
    vhost, dead = platform.vhost, dead_letter_queue(USER_CREATED_QUEUE)
    await flood(platform, 80, "user.created.v1")
    await vhost.publish(user_created(uuid4()))

    told = await eventually(lambda: remark(platform, "customer-provisioner"), bool)
    await eventually(lambda: vhost.depth(USER_CREATED_QUEUE), lambda depth: depth == 30)

    assert str(told).startswith(f"{USER_CREATED_QUEUE} is stopped: 51 of")
    assert await vhost.depth(dead) == MOST
    resume(platform, "customer-provisioner")
    await eventually(lambda: vhost.depth(dead), lambda depth: depth == 80)
    await eventually(lambda: customers(platform), lambda made: made == 1)


@pytest.mark.parametrize("service", ["usage-ingest", "stripe-reporter", "customer-provisioner"])
async def test_resuming_what_is_not_stopped_changes_nothing(
    platform: Platform, service: str
) -> None:
    """The signal ends no process, whichever service it is sent to."""
    platform.start(service)

    resume(platform, service)

    async def asked() -> str:
        return platform.log(service)

    await eventually(asked, lambda log: "resume_asked_for" in log)
    assert platform.services[service].ready


async def customers(platform: Platform) -> int:
    """Return how many customers Stripe has."""
    query = "SELECT count(*)::int FROM user_profiles WHERE stripe_customer_id IS NOT NULL"
    rows = await platform.rows("customer_provisioner", query)
    return int(str(rows[0][0]))


@pytest.mark.parametrize(
    ("sources", "named"),
    [
        ([BAD], BAD),
        ([None], "unknown sources"),
        ([f"hub/{number}" for number in range(PAIRS)], "unknown sources"),
    ],
    ids=["one name", "unreadable", "a name for each message"],
)
async def test_others_are_recorded_within_a_second_beside_a_bad_publisher(
    platform: Platform, sources: Sequence[str | None], named: str
) -> None:
    """At half of the traffic; the dead-letter queue gets one window of it, the rest waits."""
    platform.settings |= SMALL
    platform.start("usage-ingest")
    await platform.vhost.publish(*(tool_run(source=BAD) for _ in range(KNOWN_AFTER)))
    await eventually(lambda: count(platform, "usage_events"), lambda rows: rows == KNOWN_AFTER)

    took = await delays(platform, sources)

    assert took[len(took) * 99 // 100] < 1, took
    dead = dead_letter_queue(TOOL_EXECUTED_QUEUE)
    assert await platform.vhost.depth(dead) == MOST
    held = f"{TOOL_EXECUTED_QUEUE} holds back dead letters of {named} ("
    assert str(await remark(platform, "usage-ingest")).startswith(held)
    _, metrics = await get(platform, "usage-ingest", "metrics")
    assert f'usage_ingest_sources_held_back{{queue="{TOOL_EXECUTED_QUEUE}"}} 1.0' in metrics
    assert platform.log("usage-ingest").count('"source_held_back"') == 1
    resume(platform, "usage-ingest")
    await eventually(lambda: remark(platform, "usage-ingest"), lambda told: told is None)
