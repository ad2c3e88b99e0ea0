"""The events API as hosts of the TypeScript package call it."""

from collections.abc import AsyncIterator

import pytest

from integration.typescript_publisher.api_process import EventsApi
from local_stack.ports import LOOPBACK, free_ports
from local_stack.servers import Broker
from support.commands import in_a_pipe
from support.vhost import open_vhost


@pytest.fixture
async def events_api(broker: Broker, password: str) -> AsyncIterator[EventsApi]:
    """Return the running API, with a key for a publisher that may publish anything."""
    made = await in_a_pipe("usage_ingest", "make-api-key", "host")
    key, entry = (line.rpartition(" ")[2] for line in made.raw.splitlines()[:2])
    [port] = free_ports(None)
    async with open_vhost(broker, password) as vhost:
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
