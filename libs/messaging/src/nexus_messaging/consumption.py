"""The work on a queue's deliveries: in batches or one by one, through outages and to the end.

A handler returns what happened to each delivery and never acks. Its faults are told apart here:
an *outage* stops consuming and hands everything back unblamed; anything else is pinned on the one
delivery that causes it, in a batch by halving it until that delivery stands alone.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from nexus_messaging.consumer import Consumer, Received
from nexus_messaging.flood import Flood
from nexus_messaging.message import Delivery
from nexus_messaging.retry import (
    CRASHED_FROM,
    HANDLED_ALONE_FROM,
    Failed,
    HandedBack,
    Outcome,
    crashed,
)
from nexus_messaging.settlement import Settlement, utc_now
from nexus_messaging.tracing import processing, processing_batch

LONGEST_PROBE_PAUSE: Final = 30.0

RELAPSE_WITHIN: Final = 10.0
LONGEST_RELAPSE_PAUSE: Final = 5.0
"""Seconds, both. An outage so soon after another is the same one, and the probe is blind to it: a
database with a full disk answers. Without a pause everything would circulate at full speed."""

MANY: Final = 1_000_000

Handler = Callable[[Delivery], Awaitable[Outcome]]
BatchHandler = Callable[[Sequence[Delivery]], Awaitable[Sequence[Outcome]]]

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
        self._breaker = settlement.breakers.of(consumer.queue)
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.paused_by: str | None = None
        self._relapse_pause = 0.0
        self._outage_ended: float | None = None

    async def run(self) -> None:
        """Consume until cancelled."""
        self._task = asyncio.current_task()
        self._consumer.open()
        while True:
            cause = await self._work_until_outage()
            await self._sit_out(cause)

    async def drain(self, seconds: float) -> None:
        """Stop consuming; process what is at hand for ``seconds``, then hand the rest back."""
        await self._consumer.shut()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            log.warning("drain_cut_short", queue=self._consumer.queue)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._hand_back([*await self._abandon(), *self._consumer.take_all()])

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
        await self._consumer.shut()
        await self._hand_back(self._consumer.take_all())
        self._idle.set()
        if isinstance(cause, Exception):
            await self._end_of_outage()
            self.paused_by = None
        await self._breaker.resumed()
        log.info("consumption_resumed", queue=self._consumer.queue)
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

    async def _hand_back(self, received: Sequence[Received]) -> None:
        outcomes = [HandedBack() for _ in received]
        await self._settlement.settle([each.delivery for each in received], outcomes)
        for each in received:
            await self._consumer.ack(each)

    async def _bury_if_crashing(self, received: Received) -> bool:
        if received.delivery.returned < CRASHED_FROM:
            return False
        await self._settlement.bury(received.delivery, crashed(received.delivery, utc_now()))
        await self._consumer.ack(received)
        return True


class BatchConsumption(Consumption):
    """Batches, one after the other: what arrived while one was processed is the next."""

    def __init__(
        self,
        consumer: Consumer,
        handle: BatchHandler,
        settlement: Settlement,
        outage: Outage,
        *,
        most: int = 500,
    ) -> None:
        super().__init__(consumer, settlement, outage)
        self._handle = handle
        self._most = most
        self._taken: list[Received] = []

    async def _abandon(self) -> list[Received]:
        return self._taken

    async def _work_until_outage(self) -> Exception | Flood:
        while True:
            if not len(self._consumer):
                self._idle.set()
            self._taken = await self._consumer.take(self._most)
            self._idle.clear()
            for group in groups(self._taken):
                with processing_batch(self._consumer.queue, [each.delivery for each in group]):
                    cause = await self._process(group)
                self._taken = self._taken[len(group) :]
                if cause is not None:
                    await self._consumer.shut()
                    await self._hand_back(self._taken)
                    self._taken = []
                    return cause

    async def _process(self, group: list[Received]) -> Exception | Flood | None:
        if await self._bury_if_crashing(group[0]):
            return self._breaker.flood
        deliveries = [each.delivery for each in group]
        cause: Exception | None = None
        try:
            outcomes = await self._outcomes(deliveries)
        except self._outage.errors as error:
            cause = error
            outcomes = [HandedBack() for _ in group]
        await self._settlement.settle(deliveries, outcomes)
        await self._consumer.ack(group[-1], multiple=True)
        return cause or self._breaker.flood

    async def _outcomes(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        try:
            return list(await self._handle(deliveries))
        except self._outage.errors:
            raise
        except Exception as error:
            if len(deliveries) == 1:
                return [Failed(error)]
            middle = len(deliveries) // 2
            first = await self._outcomes(deliveries[:middle])
            return first + await self._outcomes(deliveries[middle:])


class SingleConsumption(Consumption):
    """One handler call for each delivery; as many at once as the consumer prefetches.

    After an outage there is one call at first, and one more at once for each that ends well: what
    has just come back is not met by everything that piled up meanwhile.
    """

    def __init__(
        self, consumer: Consumer, handle: Handler, settlement: Settlement, outage: Outage
    ) -> None:
        super().__init__(consumer, settlement, outage)
        self._handle = handle
        self._running: dict[asyncio.Task[None], Received] = {}
        self._tripped: asyncio.Future[Exception | Flood] | None = None
        self._at_once = MANY
        self._room = asyncio.Event()

    async def _abandon(self) -> list[Received]:
        running = dict(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        return [received for task, received in running.items() if task.cancelled()]

    async def _work_until_outage(self) -> Exception | Flood:
        tripped = self._tripped = asyncio.get_running_loop().create_future()
        feed = asyncio.create_task(self._feed())
        try:
            await asyncio.wait({tripped, feed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            feed.cancel()
        await self._consumer.shut()
        if self._running:
            await asyncio.wait(self._running)
        cause: Exception | Flood = await tripped
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
                task = asyncio.create_task(self._process(received))
                self._running[task] = received
                task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._at_once += 1
        self._room.set()
        self._rest_if_idle()

    def _rest_if_idle(self) -> None:
        if not self._running and not len(self._consumer):
            self._idle.set()

    async def _process(self, received: Received) -> None:
        with processing(received.delivery):
            if not await self._bury_if_crashing(received):
                outcome = await self._outcome(received.delivery)
                await self._settlement.settle([received.delivery], [outcome])
                await self._consumer.ack(received)
        if self._breaker.flood is not None:
            self._trip(self._breaker.flood)

    async def _outcome(self, delivery: Delivery) -> Outcome:
        try:
            return await self._handle(delivery)
        except self._outage.errors as error:
            self._trip(error)
            return HandedBack()
        except Exception as error:
            return Failed(error)

    def _trip(self, cause: Exception | Flood) -> None:
        if self._tripped is not None and not self._tripped.done():
            self._tripped.set_result(cause)


def groups(received: Sequence[Received]) -> list[list[Received]]:
    """Split deliveries, in order, so that each suspect of crashing its reader stands alone."""
    split: list[list[Received]] = []
    open_group = False
    for each in received:
        alone = each.delivery.returned >= HANDLED_ALONE_FROM
        if alone or not open_group:
            split.append([each])
        else:
            split[-1].append(each)
        open_group = not alone
    return split
