"""Consumes a queue until the service drains: pauses during outages, stops at a flood.

``batches`` and ``singles`` decide how many deliveries are processed together or concurrently;
``pipeline`` lists the steps of each.
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Final

import structlog

from nexus_messaging.backoff import Backoff
from nexus_messaging.consumer import Consumer
from nexus_messaging.flood import Flood
from nexus_messaging.flood_guard import FloodGuard
from nexus_messaging.pipeline import BatchHandler, Outage, Pipeline, Trace
from nexus_messaging.received import Received
from nexus_messaging.settlement import Settlement

MAX_PROBE_PAUSE: Final = 30.0
"""Seconds between two probes during an outage, at most."""

RELAPSE_WINDOW: Final = 10.0
MAX_RELAPSE_PAUSE: Final = 5.0
"""Seconds, both. An outage within the window after another is a relapse that the probe does not
detect: a database with a full disk answers it. Without a pause, messages would pass between the
queue and the first retry tier at full speed."""

log = structlog.get_logger()


class Consumption(ABC):
    """Feeds the deliveries of one consumer to its pipeline."""

    def __init__(
        self,
        consumer: Consumer,
        handle: BatchHandler,
        settlement: Settlement,
        guard: FloodGuard,
        outage: Outage,
        trace: Trace,
    ) -> None:
        self._consumer = consumer
        self._pipeline = Pipeline(consumer, handle, settlement, guard, outage, trace)
        self._outage = outage
        self._guard = guard
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._draining = False
        self.paused_by: str | None = None
        self._relapse = Backoff(0.5, MAX_RELAPSE_PAUSE)
        self._outage_ended: float | None = None

    @property
    def queue(self) -> str:
        """The name of the queue."""
        return self._consumer.queue

    def is_paused(self) -> bool:
        """Whether an outage keeps the queue from being consumed."""
        return self.paused_by is not None

    async def run(self) -> None:
        """Consume until cancelled.

        After an unexpected error it is not known which deliveries are settled. The connection is
        closed without acks, so the broker delivers all of them again.
        """
        self._task = asyncio.current_task()
        self._start_consuming()
        try:
            while True:
                cause = await self._process_until_stopped()
                await self._wait_out(cause)
        except Exception:
            self.paused_by = None
            await self._consumer.reset()
            await self._abandon()
            raise

    async def drain(self, seconds: float) -> None:
        """Cancel consuming, process buffered deliveries for ``seconds``, hand back the rest.

        Acks are held until the end: see ``Consumer.release_acks``.
        """
        self._draining = True
        self._consumer.hold_acks()
        cancelling = asyncio.ensure_future(self._consumer.cancel_consuming())
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(cancelling)
                await self._idle.wait()
        except TimeoutError:
            log.warning("drain_cut_short", queue=self._consumer.queue)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._pipeline.hand_back([*await self._abandon(), *self._consumer.receive_nowait()])
        await self._consumer.release_acks()

    @abstractmethod
    async def _process_until_stopped(self) -> Exception | Flood:
        """Process deliveries until an outage or a flood; return it when none is in progress."""

    @abstractmethod
    async def _abandon(self) -> list[Received]:
        """Stop processing and return the deliveries in progress that are not settled."""

    async def _wait_out(self, cause: Exception | Flood) -> None:
        if isinstance(cause, Exception):
            self.paused_by = type(cause).__name__
            log.warning("consumption_paused", queue=self._consumer.queue, cause=self.paused_by)
        await self._cancel_and_hand_back()
        self._idle.set()
        if isinstance(cause, Exception):
            await self._wait_for_recovery()
            self.paused_by = None
        await self._guard.wait_until_resumed()
        log.info("consumption_resumed", queue=self._consumer.queue)
        self._start_consuming()

    def _start_consuming(self) -> None:
        # An outage may end, or a failed loop restart, while the service drains.
        if not self._draining:
            self._consumer.start_consuming()

    async def _wait_for_recovery(self) -> None:
        clock = asyncio.get_running_loop().time
        if self._outage_ended is not None and clock() - self._outage_ended < RELAPSE_WINDOW:
            await self._relapse.wait()
        else:
            self._relapse.reset()
        await self._probe_until_success()
        self._outage_ended = clock()

    async def _probe_until_success(self) -> None:
        backoff = Backoff(0.5, MAX_PROBE_PAUSE)
        while True:
            try:
                await self._outage.probe()
            except self._outage.errors:
                await backoff.wait()
            else:
                return

    async def _cancel_and_hand_back(self) -> None:
        """Cancel consuming; hand back buffered deliveries, and those that arrive meanwhile.

        Both run at once: the broker's answer comes after the deliveries it has already sent, and
        those are read only as unacked deliveries are settled.
        """
        cancelling = asyncio.ensure_future(self._consumer.cancel_consuming())
        try:
            while not cancelling.done() or len(self._consumer):
                await self._pipeline.hand_back(self._consumer.receive_nowait())
                if not len(self._consumer):
                    arrival = asyncio.ensure_future(self._consumer.wait_for_delivery())
                    await asyncio.wait({cancelling, arrival}, return_when=asyncio.FIRST_COMPLETED)
                    arrival.cancel()
        finally:
            cancelling.cancel()
        await cancelling
