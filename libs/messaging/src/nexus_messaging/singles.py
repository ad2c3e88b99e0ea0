"""Consumes a queue with concurrent handler calls, one for each delivery: for I/O-bound work."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final

import structlog
from typing_extensions import override

from nexus_messaging.consumer import Consumer
from nexus_messaging.consumption import Consumption
from nexus_messaging.errors import where
from nexus_messaging.flood import Flood
from nexus_messaging.flood_guard import FloodGuard
from nexus_messaging.message import Delivery
from nexus_messaging.pipeline import Outage
from nexus_messaging.received import Received
from nexus_messaging.retry import Outcome
from nexus_messaging.settlement import Settlement
from nexus_messaging.tracing import message_span

UNLIMITED: Final = 1_000_000

log = structlog.get_logger()

Handler = Callable[[Delivery], Awaitable[Outcome]]
"""Returns the outcome of a delivery; it must not ack."""


class SingleConsumption(Consumption):
    """Calls the handler once for each delivery; the prefetch limits concurrent calls.

    After an outage the first call runs alone, and each call that ends adds one to the limit: a
    dependency that has just recovered does not receive the whole backlog at once.
    """

    def __init__(
        self,
        consumer: Consumer,
        handle: Handler,
        settlement: Settlement,
        guard: FloodGuard,
        outage: Outage,
    ) -> None:
        async def handle_one(deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
            [delivery] = deliveries
            return [await handle(delivery)]

        super().__init__(consumer, handle_one, settlement, guard, outage, _trace)
        self._running: dict[asyncio.Task[None], Received] = {}
        self._stopped: asyncio.Future[Exception | Flood | None] | None = None
        self._unexpected: BaseException | None = None
        self._concurrency = UNLIMITED
        self._slot_freed = asyncio.Event()

    @override
    async def _abandon(self) -> list[Received]:
        running = dict(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        return [received for task, received in running.items() if task.cancelled()]

    @override
    async def _process_until_stopped(self) -> Exception | Flood:
        stopped = self._stopped = asyncio.get_running_loop().create_future()
        self._unexpected = None
        feed = asyncio.create_task(self._feed())
        try:
            await asyncio.wait({stopped, feed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            feed.cancel()
        if not stopped.done():
            await feed  # raises its error
        cause: Exception | Flood | None = await stopped
        if cause is not None:
            await self._cancel_and_hand_back()
            if self._running:
                await asyncio.wait(self._running)
        if self._unexpected is not None:
            raise self._unexpected
        assert cause is not None
        self._concurrency = 1
        return cause

    async def _feed(self) -> None:
        while True:
            self._set_idle_if_done()
            while len(self._running) >= self._concurrency:
                self._slot_freed.clear()
                await self._slot_freed.wait()
            for received in await self._consumer.receive(1):
                self._idle.clear()
                task = asyncio.create_task(self._pipeline.process([received], self._stop))
                self._running[task] = received
                task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if not task.cancelled() and (unexpected := task.exception()) is not None:
            self._fail(unexpected)
        self._concurrency += 1
        self._slot_freed.set()
        self._set_idle_if_done()

    def _set_idle_if_done(self) -> None:
        if not self._running and not len(self._consumer):
            self._idle.set()

    def _fail(self, unexpected: BaseException) -> None:
        self._unexpected = unexpected  # also after an outage was found
        if self._draining:  # the loop may be cancelled before it raises the error
            cause, place = type(unexpected).__name__, where(unexpected)
            log.warning("drain_failed", queue=self.queue, cause=cause, where=place)
        self._stop(None)

    def _stop(self, cause: Exception | Flood | None) -> None:
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(cause)


def _trace(_queue: str, deliveries: Sequence[Delivery]) -> AbstractContextManager[None]:
    [delivery] = deliveries
    return message_span(delivery)
