"""A consumer of each kind at work on one queue, and what its handler saw."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import quote

from aio_pika.abc import AbstractIncomingMessage
from prometheus_client import CollectorRegistry

from nexus_messaging.batches import BatchConsumption
from nexus_messaging.consumer import Consumer
from nexus_messaging.consumption import Consumption
from nexus_messaging.flood import FloodLimit
from nexus_messaging.flood_guard import FloodGuards
from nexus_messaging.message import Delivery
from nexus_messaging.metrics import MessagingMetrics
from nexus_messaging.pipeline import Outage
from nexus_messaging.publisher import Publisher
from nexus_messaging.retry import Done, Outcome
from nexus_messaging.settlement import Settlement
from nexus_messaging.singles import SingleConsumption
from nexus_messaging.topology import TIERS, TOOL_EXECUTED_QUEUE, dead_letter_queue
from nexus_service.lifecycle import run_until
from support.vhost import Vhost
from support.waiting import eventually

SERVICE = "usage-ingest"
QUEUE = TOOL_EXECUTED_QUEUE
DEAD_LETTERS = dead_letter_queue(QUEUE)
PREFETCH = 20

MIN_SCALE = 0.00001
"""The scale at which every retry tier waits as little as it can."""

Behaviour = Callable[[Delivery], Awaitable[Outcome]]


class DownError(Exception):
    """What a handler raises while that which it needs is away."""


async def well(_delivery: Delivery) -> Outcome:
    """Handle a delivery without trouble."""
    return Done()


class Bench:
    """Consumes the queue of tool runs with ``behave`` as its handler.

    ``kind`` is ``batch`` or ``single``. ``handled`` holds every delivery that was
    given to the handler, ``batches`` the sizes of the groups it was called with.
    """

    def __init__(
        self,
        vhost: Vhost,
        kind: str,
        limit: FloodLimit | None = None,
        *,
        prefetch: int = PREFETCH,
        fast_reading: bool = True,
    ) -> None:
        self.vhost = vhost
        self.prefetch = prefetch
        self.fast_reading = fast_reading
        self.kind = kind
        self.limit = limit
        self.guards: FloodGuards | None = None
        self.behave: Behaviour = well
        self.handled: list[Delivery] = []
        self.batches: list[int] = []
        self.down = False
        self.probes = 0
        self.consumer: Consumer | None = None
        self.consumption: Consumption | None = None
        self.registry = CollectorRegistry()
        self._metrics = MessagingMetrics(self.registry, service=SERVICE, queues=[QUEUE])

    @asynccontextmanager
    async def consuming(self, *, grace: float = 5.0) -> AsyncIterator[None]:
        """Consume while the context lasts; then stop as SIGTERM does."""
        stop = asyncio.Event()
        running = asyncio.create_task(self._serve(stop, grace))
        try:
            yield
        finally:
            stop.set()
            await running

    def ids(self) -> list[str | None]:
        """Return the message ids of what was handled, in order."""
        return [delivery.message.message_id for delivery in self.handled]

    async def stopped(self) -> str | None:
        """Return why a flood has stopped the consumption, if one has."""
        return None if self.guards is None else await self.guards.remark()

    def resume(self) -> None:
        """Do what SIGUSR1 does."""
        assert self.guards is not None
        self.guards.resume()

    async def tried(self) -> int:
        """Return how often the handler was given a delivery."""
        return len(self.handled)

    async def consumes(self) -> bool:
        """Return whether the broker would deliver now, as far as the consumer knows."""
        return self.consumer is not None and self.consumer.consuming

    async def probed(self) -> int:
        """Return how often the end of an outage was asked for."""
        return self.probes

    def count(self, metric: str, **labels: str) -> float:
        """Return a counter of the service."""
        name = f"usage_ingest_messages_{metric}_total"
        return self.registry.get_sample_value(name, {"queue": QUEUE, **labels}) or 0

    def gauge(self, metric: str) -> float | None:
        """Return a gauge of the service."""
        return self.registry.get_sample_value(f"usage_ingest_{metric}", {"queue": QUEUE})

    async def all_done(self, messages: int) -> None:
        """Wait until so many messages ended well."""
        await eventually(self._done, lambda done: done >= messages)

    async def dead_letters(self, number: int) -> list[AbstractIncomingMessage]:
        """Wait for ``number`` dead letters and return them."""
        await eventually(lambda: self.vhost.depth(DEAD_LETTERS), lambda depth: depth >= number)
        letters = await self.vhost.dead_letters(QUEUE)
        assert len(letters) == number
        return letters

    async def waiting(self) -> int:
        """Count the messages in the queue and in the retry tiers, those in hand aside."""
        return sum([await self.vhost.depth(name) for name in (QUEUE, *(t.name for t in TIERS))])

    async def _done(self) -> float:
        return self.count("done")

    async def _serve(self, stop: asyncio.Event, grace: float) -> None:
        url = self.vhost.url(SERVICE)
        async with AsyncExitStack() as stack:
            publisher = await Publisher.connect(url, name=SERVICE)
            stack.push_async_callback(publisher.close)
            settlement = Settlement(publisher, self._metrics, service=SERVICE)
            self.guards = FloodGuards(self.limit or FloodLimit(), self._metrics)
            guard = self.guards.of(QUEUE)
            outage = Outage((DownError,), self._probe)
            consumer = self.consumer = Consumer(
                url,
                QUEUE,
                prefetch=self.prefetch,
                name=SERVICE,
                fast_reading=self.fast_reading,
            )
            work: Consumption = (
                BatchConsumption(consumer, self._handle_batch, settlement, guard, outage)
                if self.kind == "batch"
                else SingleConsumption(consumer, self._handle, settlement, guard, outage)
            )
            self.consumption = work
            await run_until(
                stop, {"receive": consumer.run, "handle": work.run}, [work], grace=grace
            )

    async def _handle(self, delivery: Delivery) -> Outcome:
        self.handled.append(delivery)
        return await self.behave(delivery)

    async def _handle_batch(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        self.batches.append(len(deliveries))
        return [await self._handle(delivery) for delivery in deliveries]

    async def _probe(self) -> None:
        self.probes += 1
        if self.down:
            raise DownError


async def close_connections(vhost: Vhost, least: int = 1) -> None:
    """Have the broker close all connections to ``vhost``, once it knows ``least`` of them."""
    found = await eventually(
        lambda: vhost.ask("GET", "vhosts/{vhost}/connections"), lambda names: len(names) >= least
    )
    for connection in found:
        await vhost.ask("DELETE", "connections/" + quote(connection["name"], safe=""))
