"""The work on a queue's deliveries, through outages and floods and to the end.

A handler returns what happened to each delivery and never acks. Its faults are told apart: an
*outage* stops consuming and hands everything back unblamed; anything else is pinned on the one
delivery that causes it.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from nexus_messaging.clock import utc_now
from nexus_messaging.consumer import Consumer
from nexus_messaging.flood import Flood
from nexus_messaging.message import Delivery
from nexus_messaging.received import Received
from nexus_messaging.retry import CRASHED_FROM, HandedBack, Outcome, crashed
from nexus_messaging.settlement import Settlement

LONGEST_PROBE_PAUSE: Final = 30.0

RELAPSE_WITHIN: Final = 10.0
LONGEST_RELAPSE_PAUSE: Final = 5.0
"""Seconds, both. An outage so soon after another is the same one, and the probe is blind to it: a
database with a full disk answers. Without a pause everything would circulate at full speed."""

Handler = Callable[[Delivery], Awaitable[Outcome]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Outage:
    """What means that no delivery can be processed now, and how to ask whether that has ended.

    ``probe`` returns when processing may go on and raises one of ``errors`` while it may not.
    """

    errors: tuple[type[Exception], ...]
    probe: Callable[[], Awaitable[None]]


class Consumption(ABC):
    """Feeds the deliveries of one consumer to a handler and settles what comes back."""

    def __init__(self, consumer: Consumer, settlement: Settlement, outage: Outage) -> None:
        self._consumer = consumer
        self._settlement = settlement
        self._outage = outage
        self._breaker = settlement.guards.of(consumer.queue)
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._draining = False
        self.paused_by: str | None = None
        self._relapse_pause = 0.0
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
                cause = await self._work_until_outage()
                await self._sit_out(cause)
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
        shutting = asyncio.ensure_future(self._consumer.shut())
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(shutting)
                await self._idle.wait()
        except TimeoutError:
            log.warning("drain_cut_short", queue=self._consumer.queue)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._hand_back([*await self._abandon(), *self._consumer.take_all()])
        await self._consumer.release_acks()

    @abstractmethod
    async def _work_until_outage(self) -> Exception | Flood:
        """Process deliveries; return the outage or flood that stopped it, with nothing in hand."""

    @abstractmethod
    async def _abandon(self) -> list[Received]:
        """Stop work on what was taken from the consumer and return what of it is not settled."""

    async def _sit_out(self, cause: Exception | Flood) -> None:
        if isinstance(cause, Exception):
            self.paused_by = type(cause).__name__
            log.warning("consumption_paused", queue=self._consumer.queue, cause=self.paused_by)
        await self._shut_and_hand_back()
        self._idle.set()
        if isinstance(cause, Exception):
            await self._end_of_outage()
            self.paused_by = None
        await self._breaker.resumed()
        log.info("consumption_resumed", queue=self._consumer.queue)
        self._open()

    def _open(self) -> None:
        # An outage may end while the service stops, and a loop that failed begins again.
        if not self._draining:
            self._consumer.open()

    async def _end_of_outage(self) -> None:
        clock = asyncio.get_running_loop().time
        relapsed = self._outage_ended is not None and clock() - self._outage_ended < RELAPSE_WITHIN
        longer = max(0.5, min(self._relapse_pause * 2, LONGEST_RELAPSE_PAUSE))
        self._relapse_pause = longer if relapsed else 0.0
        await asyncio.sleep(self._relapse_pause)
        await self._probe_succeeds()
        self._outage_ended = clock()

    async def _probe_succeeds(self) -> None:
        pause = 0.5
        while True:
            try:
                await self._outage.probe()
            except self._outage.errors:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PROBE_PAUSE)
            else:
                return

    async def _shut_and_hand_back(self) -> None:
        """Cancel consuming and hand back what is buffered, and what arrives until then.

        Together, because the broker's answer comes behind what it has sent before, which is read
        only as fast as what is in hand grows less.
        """
        shutting = asyncio.ensure_future(self._consumer.shut())
        try:
            while not shutting.done() or len(self._consumer):
                await self._hand_back(self._consumer.take_all())
                if not len(self._consumer):
                    arrival = asyncio.ensure_future(self._consumer.arrival())
                    await asyncio.wait({shutting, arrival}, return_when=asyncio.FIRST_COMPLETED)
                    arrival.cancel()
        finally:
            shutting.cancel()
        await shutting

    async def _hand_back(self, received: Sequence[Received]) -> None:
        outcomes = [HandedBack() for _ in received]
        await self._settlement.settle([each.delivery for each in received], outcomes)
        await self._consumer.ack(received)

    async def _dead_letter_if_crashing(self, received: Received) -> bool:
        if received.delivery.returned < CRASHED_FROM:
            return False
        await self._settlement.dead_letter(received.delivery, crashed(received.delivery, utc_now()))
        await self._consumer.ack([received])
        return True
