"""The events API in this process, on a real broker, and a client of it."""

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aio_pika.abc import AbstractIncomingMessage
from prometheus_client import CollectorRegistry

from local_stack.ports import LOOPBACK
from local_stack.servers import Broker
from nexus_contracts import Event, EventData
from nexus_messaging.publisher import Publisher
from nexus_messaging.topology import TOOL_EXECUTED_QUEUE, UNROUTABLE, USER_CREATED_QUEUE
from nexus_service.api_keys import FULL_BATCH, ApiKey, make_api_key
from nexus_service.asgi import AsgiServer, serving_asgi
from nexus_service.rate_limit import RateLimiter
from support.vhost import Vhost, open_vhost
from usage_ingest.events_api.http import EventsApi, application
from usage_ingest.events_api.metrics import Metrics

KEY, KEYS_ENTRY = make_api_key("hub", ["*"], ["*"])
NARROW_KEY, NARROW_ENTRY = make_api_key("web", ["web"], ["tool.executed"])
QUEUES = (TOOL_EXECUTED_QUEUE, USER_CREATED_QUEUE, UNROUTABLE)


@dataclass(frozen=True)
class Answer:
    """An answer of the API."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def bad_indexes(self) -> set[int]:
        """The events that the answer refuses."""
        return {each["index"] for each in self.body["errors"]}


@dataclass(frozen=True)
class Api:
    """The running API, and how a client calls it."""

    url: str
    server: AsgiServer
    registry: CollectorRegistry = field(repr=False)

    async def post(
        self,
        body: object,
        *,
        content_type: str | None = "application/json",
        key: str | None = KEY,
        **headers: str,
    ) -> Answer:
        """Send a request; ``body`` is bytes, or JSON. In names of headers, ``_`` stands for -."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        if content_type is not None:
            sent["Content-Type"] = content_type
        data = BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        async with (
            aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as session,
            session.post(f"{self.url}/v1/events", data=data, headers=sent) as answer,
        ):
            return Answer(answer.status, answer.headers, await answer.json(content_type=None))

    def counted(self, answer: str) -> float:
        """Return how many requests had this answer, by the metrics."""
        value = self.registry.get_sample_value("events_api_requests_total", {"answer": answer})
        return value or 0.0


@asynccontextmanager
async def running_api(
    publisher: Publisher,
    *,
    keys: tuple[ApiKey, ...] = (KEYS_ENTRY, NARROW_ENTRY),
    rate: float = 1e6,
) -> AsyncIterator[Api]:
    """Run the API with ``publisher``, which is closed at the end."""
    registry = CollectorRegistry()
    limit = RateLimiter(rate, FULL_BATCH, time.monotonic)
    api = EventsApi(keys, limit, publisher, Metrics(registry))
    try:
        async with serving_asgi(application(api, []), LOOPBACK, 0) as server:
            yield Api(f"http://{LOOPBACK}:{server.port}", server, registry)
    finally:
        await publisher.close()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def lasting(broker: Broker, password: str) -> AsyncIterator[Vhost]:
    """Return one vhost for all tests of this folder."""
    async with open_vhost(broker, password) as made:
        yield made


@pytest.fixture
async def vhost(lasting: Vhost) -> AsyncIterator[Vhost]:
    """Return a vhost whose queues are empty."""
    yield lasting
    await lasting.empty()


@pytest.fixture
async def api(vhost: Vhost) -> AsyncIterator[Api]:
    """Return the running API, connected to the broker as the user `publisher`."""
    publisher = await Publisher.connect(vhost.url("publisher"), name="events-api")
    async with running_api(publisher) as running:
        yield running


def as_json(event: Event[EventData]) -> dict[str, Any]:
    """Return an event as a client sends it."""
    sent: dict[str, Any] = json.loads(event.body())
    return sent


async def published(vhost: Vhost) -> list[AbstractIncomingMessage]:
    """Return every published message."""
    return [message for queue in QUEUES for message in await vhost.peek(queue)]
