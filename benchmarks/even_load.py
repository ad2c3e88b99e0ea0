"""A steady load on running services, and the processes that see when it is done."""

import asyncio
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import aiormq
import asyncpg
from aiormq.abc import AbstractChannel
from typing_extensions import override
from yarl import URL

from harness import Servers, load_average
from local_stack.catalogue import base_environment
from nexus_messaging.topology import EVENTS
from peers.witnesses import CHANNEL, QUEUE
from support.backlog import Example, publish_copy, runs
from support.load_scenarios import users_with_accounts
from support.platform import Platform, standalone_platform

SERVICE: Final = "usage_ingest"
MODULES: Final = (SERVICE, "stripe_reporter")
WITNESSES: Final = Path(__file__).parent / "peers" / "witnesses.py"
USERS: Final = 100
POLL_SECONDS: Final = 0.2
PATIENCE_SECONDS: Final = 60.0
"""How long a load may take to be done after its end."""
SETTLED_SECONDS: Final = 1.0
"""How long the last acks and notifications may take."""

NOTIFY: Final = f"""
CREATE FUNCTION notify_recorded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A notification has room for 200 ids: its limit is 8,000 bytes.
    PERFORM pg_notify('{CHANNEL}', string_agg(event_id::text, ','))
       FROM (SELECT event_id, (row_number() OVER () - 1) / 200 AS part FROM recorded) AS r
      GROUP BY part;
    RETURN NULL;
END $$;
CREATE TRIGGER notify_recorded AFTER INSERT ON usage_events
    REFERENCING NEW TABLE AS recorded EXECUTE FUNCTION notify_recorded();
"""  # noqa: S608 - a constant of this program
Times = dict[str, float]
"""Unix seconds by event id."""


class TooSlowError(Exception):
    """A load was not done in time."""


@dataclass(frozen=True, slots=True)
class Load:
    """Runs published evenly; ``rate`` is per second."""

    rate: int
    count: int

    @override
    def __str__(self) -> str:
        return f"{self.rate}/s"


@dataclass(frozen=True, slots=True)
class Publisher:
    """Publishes copies of examples evenly, and remembers when."""

    channel: AbstractChannel
    examples: Sequence[Example]

    async def publish(self, load: Load, *, exchange: str = EVENTS, key: str | None = None) -> Times:
        """Publish the load; a late run is published at once."""
        published: Times = {}
        began = time.monotonic()
        while len(published) < load.count:
            wait = began + len(published) / load.rate - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            example = self.examples[len(published) % len(self.examples)]
            new_id = str(uuid4())
            published[new_id] = time.time()
            await publish_copy(self.channel, example, new_id, exchange=exchange, key=key)
        return published


@dataclass(frozen=True, slots=True)
class Bench:
    """Running services, and a connection to the ledger as superuser."""

    platform: Platform
    ledger: asyncpg.Connection
    ledger_url: str
    examples: Sequence[Example]

    @asynccontextmanager
    async def publisher(self) -> AsyncIterator[Publisher]:
        """Connect a publisher, and declare the bare consumer's queue."""
        connection = await aiormq.connect(self.platform.vhost.admin_url)
        try:
            channel = await connection.channel(publisher_confirms=False)
            await channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
            yield Publisher(channel, self.examples)
        finally:
            await connection.close()


@asynccontextmanager
async def started(servers: Servers, window: int, *services: str) -> AsyncIterator[Bench]:
    """Start services with windows of so many seconds, on databases and a vhost of their own."""
    settings = {
        "LOG_LEVEL": "WARNING",
        "REPORT_WINDOW_SECONDS": str(window),
        "STRIPE_MAX_CALLS_PER_SECOND": "1000",
    }
    url = str(URL(servers.postgres.superuser_url).with_path(f"/{SERVICE}"))
    logs = Path(tempfile.mkdtemp(dir=servers.directory))
    async with standalone_platform(
        servers.broker, servers.postgres, logs, settings, MODULES
    ) as platform:
        examples = runs(await users_with_accounts(platform, USERS))
        ledger = await asyncpg.connect(url)
        try:
            await ledger.execute(NOTIFY)
            platform.start(*services)
            yield Bench(platform, ledger, url, examples)
        finally:
            await ledger.close()


@asynccontextmanager
async def witness(name: str, **settings: str) -> AsyncIterator[Times]:
    """Run a witness while the context lasts; what it saw is there at the end."""
    seen: Times = {}
    command = (sys.executable, str(WITNESSES), name)
    environment = {**base_environment(), **settings}
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE)
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        yield seen
        await asyncio.sleep(SETTLED_SECONDS)
    finally:
        process.terminate()
        output, _ = await process.communicate()
        for line in output.decode().splitlines():
            event_id, _, moment = line.partition(" ")
            seen[event_id] = float(moment)


async def wait_until(left: Callable[[], Awaitable[int]], what: str) -> None:
    """Wait until nothing is left.

    Raises:
        TooSlowError: it takes too long.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while number := await left():
        if time.monotonic() > deadline:
            text = f"{number} runs are not {what} {PATIENCE_SECONDS:.0f} s after the last"
            raise TooSlowError(f"{text}; load average {load_average()}")
        await asyncio.sleep(POLL_SECONDS)
