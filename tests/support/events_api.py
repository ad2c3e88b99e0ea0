"""The events API in a process of its own, which tests kill and start again."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from local_stack.catalogue import base_environment
from local_stack.ports import LOOPBACK, free_ports
from nexus_messaging.topology import OUTSIDE_QUEUES, TOOL_EXECUTED_QUEUE
from support.commands import in_a_pipe
from support.vhost import Vhost
from support.waiting import eventually


@dataclass
class EventsApi:
    """The process `usage-ingest events-api`, and where its events go."""

    vhost: Vhost
    key: str = field(repr=False)
    settings: dict[str, str] = field(repr=False)
    _process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Return its address, the same after each start."""
        return f"http://{LOOPBACK}:{self.settings['HTTP_PORT']}"

    async def start(self) -> None:
        """Start it, and wait until it can publish."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "usage_ingest", "events-api"),
            env={**base_environment(), **self.settings},
            stdout=asyncio.subprocess.DEVNULL,
        )
        await eventually(self._ready, bool, within=60)

    async def kill(self) -> None:
        """End it by SIGKILL."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def queued(self) -> dict[str | None, str | None]:
        """Return the types of the events in the queues by id."""
        queues = [await self.vhost.peek(queue) for queue in OUTSIDE_QUEUES]
        return {message.message_id: message.type for queue in queues for message in queue}

    async def depth(self) -> int:
        """Count the tool runs in the queue."""
        return await self.vhost.depth(TOOL_EXECUTED_QUEUE)

    async def _ready(self) -> bool:
        try:
            async with aiohttp.ClientSession() as client, client.get(f"{self.url}/readyz") as got:
                return got.status == 200
        except aiohttp.ClientError:
            return False


@asynccontextmanager
async def running_events_api(vhost: Vhost, *key_options: str) -> AsyncIterator[EventsApi]:
    """Start the API with a key, which may publish anything unless ``key_options`` say less."""
    made = await in_a_pipe("usage_ingest", "make-api-key", "host", *key_options)
    key, entry = (line.rpartition(" ")[2] for line in made.raw.splitlines()[:2])
    [port] = free_ports(None)
    settings = {
        "AMQP_URL": vhost.url("publisher"),
        "API_KEYS": entry,
        "HTTP_HOST": LOOPBACK,
        "HTTP_PORT": str(port),
    }
    api = EventsApi(vhost, key, settings)
    try:
        await api.start()
        yield api
    finally:
        await api.kill()
