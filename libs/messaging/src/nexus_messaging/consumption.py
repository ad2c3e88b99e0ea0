"""The consumption of a queue through outages and floods to the end.

``batches`` and ``singles`` say how many deliveries are processed together or at once, ``pipeline``
what each of them goes through.
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

LONGEST_PROBE_PAUSE: Final = 30.0

RELAPSE_WITHIN: Final = 10.0
LONGEST_RELAPSE_PAUSE: Final = 5.0
"""Seconds, both. An outage so soon after another is the same one, and the probe is blind to it: a
database with a full disk answers. Without a pause everything would circulate at full speed."""

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
        self._relapse = Backoff(0.5, LONGEST_RELAPSE_PAUSE)
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

        After an error that nobody foresaw it is not known which deliveries are settled. The
        connection is dropped, so that none of them can be acked, and all of them come again.
        """
        self._task = asyncio.current_task()
        self._open()
        try:
            while True:
                cause = await self._work_until_stopped()
                await self._wait_for_the_end_of(cause)
        except Exception:
            self.paused_by = None
            await self._consumer.reset()
            await self._abandon()
            raise

    async def drain(self, seconds: float) -> None:
        """Stop consuming; process what is at hand for ``seconds``, then hand the rest back.

        Acks are held until the end: see ``Consumer.release_acks``.
        """
        self._draining = True
        self._consumer.hold_acks()
        cancelling = asyncio.ensure_future(self._consumer.shut())
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(cancelling)
                await self._idle.wait()
        except TimeoutError:
            log.warning("drain_cut_short", queue=self._consumer.queue)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._pipeline.hand_back([*await self._abandon(), *self._consumer.take_all()])
        await self._consumer.release_acks()

    @abstractmethod
    async def _work_until_stopped(self) -> Exception | Flood:
        """Process deliveries; return the outage or flood that stopped it, with nothing in hand."""

    @abstractmethod
    async def _abandon(self) -> list[Received]:
        """Stop work on what was taken from the consumer and return what of it is not settled."""

    async def _wait_for_the_end_of(self, cause: Exception | Flood) -> None:
        if isinstance(cause, Exception):
            self.paused_by = type(cause).__name__
            log.warning("consumption_paused", queue=self._consumer.queue, cause=self.paused_by)
        await self._shut_and_hand_back()
        self._idle.set()
        if isinstance(cause, Exception):
            await self._end_of_outage()
            self.paused_by = None
        await self._guard.resumed()
        log.info("consumption_resumed", queue=self._consumer.queue)
        self._open()

    def _open(self) -> None:
        # An outage may end while the service stops, and a loop that failed begins again.
        if not self._draining:
            self._consumer.open()

    async def _end_of_outage(self) -> None:
        clock = asyncio.get_running_loop().time
        if self._outage_ended is not None and clock() - self._outage_ended < RELAPSE_WITHIN:
            await self._relapse.wait()
        else:
            self._relapse.reset()
        await self._probe_succeeds()
        self._outage_ended = clock()

    async def _probe_succeeds(self) -> None:
        backoff = Backoff(0.5, LONGEST_PROBE_PAUSE)
        while True:
            try:
                await self._outage.probe()
            except self._outage.errors:
                await backoff.wait()
            else:
                return

    async def _shut_and_hand_back(self) -> None:
        """Cancel consuming and hand back what is buffered, and what arrives until then.

        Together, because the broker's answer comes behind what it has sent before, which is read
        only as fast as what is in hand grows less.
        """
        cancelling = asyncio.ensure_future(self._consumer.shut())
        try:
            while not cancelling.done() or len(self._consumer):
                await self._pipeline.hand_back(self._consumer.take_all())
                if not len(self._consumer):
                    arrival = asyncio.ensure_future(self._consumer.arrival())
                    await asyncio.wait({cancelling, arrival}, return_when=asyncio.FIRST_COMPLETED)
                    arrival.cancel()
        finally:
            cancelling.cancel()
        await cancelling
