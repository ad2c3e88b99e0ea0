"""Consumption one by one, many at once: for work whose time is spent waiting for somebody else."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final

from nexus_messaging.consumer import Consumer
from nexus_messaging.consumption import Consumption
from nexus_messaging.flood import Flood
from nexus_messaging.flood_guard import FloodGuard
from nexus_messaging.message import Delivery
from nexus_messaging.pipeline import Outage
from nexus_messaging.received import Received
from nexus_messaging.retry import Outcome
from nexus_messaging.settlement import Settlement
from nexus_messaging.tracing import processing

MANY: Final = 1_000_000

Handler = Callable[[Delivery], Awaitable[Outcome]]
"""Returns what happened to a delivery, and never acks."""


class SingleConsumption(Consumption):
    """One handler call for each delivery; as many at once as the consumer prefetches.

    After an outage there is one call at first, and one more at once for each that ends well: what
    has just come back is not met by everything that piled up meanwhile.
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
        self._stopped: asyncio.Future[Exception | Flood] | None = None
        self._unforeseen: BaseException | None = None
        self._at_once = MANY
        self._room = asyncio.Event()

    async def _abandon(self) -> list[Received]:
        running = dict(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        return [received for task, received in running.items() if task.cancelled()]

    async def _work_until_stopped(self) -> Exception | Flood:
        stopped = self._stopped = asyncio.get_running_loop().create_future()
        self._unforeseen = None
        feed = asyncio.create_task(self._feed())
        try:
            await asyncio.wait({stopped, feed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            feed.cancel()
        if not stopped.done():
            await feed  # raises what ended it
        cause: Exception | Flood = await stopped
        await self._shut_and_hand_back()
        if self._running:
            await asyncio.wait(self._running)
        if self._unforeseen is not None:
            raise self._unforeseen
        self._at_once = 1
        return cause

    async def _feed(self) -> None:
        while True:
            self._rest_if_idle()
            while len(self._running) >= self._at_once:
                self._room.clear()
                await self._room.wait()
            for received in await self._consumer.take(1):
                self._idle.clear()
                task = asyncio.create_task(self._pipeline.process([received], self._stop))
                self._running[task] = received
                task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if not task.cancelled() and (unforeseen := task.exception()) is not None:
            self._fail(unforeseen)
        self._at_once += 1
        self._room.set()
        self._rest_if_idle()

    def _rest_if_idle(self) -> None:
        if not self._running and not len(self._consumer):
            self._idle.set()

    def _fail(self, unforeseen: BaseException) -> None:
        self._unforeseen = unforeseen  # also when an outage was found first
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_exception(unforeseen)

    def _stop(self, cause: Exception | Flood) -> None:
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(cause)


def _trace(_queue: str, deliveries: Sequence[Delivery]) -> AbstractContextManager[None]:
    [delivery] = deliveries
    return processing(delivery)
