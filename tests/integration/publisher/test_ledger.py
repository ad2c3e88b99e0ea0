"""From a host that is killed again and again to the ledger, while the broker restarts."""

import asyncio
import random
import signal
from pathlib import Path

import pytest
from sqlalchemy import text

from integration.publisher.processes import host_process, run_host
from local_stack.servers import Broker
from nexus_database import Database
from support.databases import Clone, opened
from support.ingest import running_ingest
from support.vhost import Vhost
from support.waiting import eventually

KILLS = 100
UP_SECONDS = 6.0
"""How long the broker runs between its restarts, on average."""


@pytest.mark.long
async def test_every_stored_event_is_in_the_ledger_once(
    vhost: Vhost, clone: Clone, tmp_path: Path
) -> None:
    """The host is killed 100 times at random moments; nothing that it stored is missing."""
    spool, amqp = str(tmp_path / "spool"), vhost.url("publisher")
    chance = random.Random(12)  # noqa: S311 - moments of kills
    promised: dict[str, str] = {}

    async with opened(await clone("usage_ingest"), 5) as database, running_ingest(vhost, database):
        enough = asyncio.Event()
        restarts = asyncio.create_task(_restart_until(enough, vhost.broker, chance))
        for _ in range(KILLS):
            async with host_process("steady", amqp=amqp, spool=spool) as host:
                await host.read_until("stored")
                reading = asyncio.create_task(host.end())
                await asyncio.sleep(chance.random() * 1.5)
                host.process.kill()
                assert await reading == -signal.SIGKILL
            promised |= host.promised
        enough.set()
        restarted = await restarts
        await run_host("flush", amqp=amqp, spool=spool)

        stored = {event_id for event_id, outcome in promised.items() if outcome == "stored"}
        await eventually(lambda: _missing(database, stored), lambda left: not left, within=120)

        print(f"{KILLS} kills, {restarted} restarts of the broker, {len(stored)} events stored")
        assert len(stored) > KILLS
        assert restarted > 1
        assert await vhost.dead_letters("usage-ingest.tool-executed") == []


async def _restart_until(enough: asyncio.Event, broker: Broker, chance: random.Random) -> int:
    """Kill and restart the broker until it is ``enough``; return how many times."""
    restarts = 0
    while not enough.is_set():
        await asyncio.sleep(2 * UP_SECONDS * chance.random())
        await asyncio.to_thread(broker.kill)
        await asyncio.sleep(chance.random())
        await asyncio.to_thread(broker.restart)
        restarts += 1
    return restarts


async def _missing(database: Database, ids: set[str]) -> set[str]:
    rows = await database.run(lambda c: c.execute(text("SELECT event_id::text FROM usage_events")))
    return ids - set(rows.scalars())
