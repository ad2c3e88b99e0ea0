"""Consumption in batches: one commit and one ack for many deliveries.

A fault that is no outage is pinned on its delivery by halving the batch until that stands alone.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from nexus_messaging.consumer import Consumer
from nexus_messaging.consumption import Consumption, Outage
from nexus_messaging.flood import Flood
from nexus_messaging.message import Delivery
from nexus_messaging.received import Received
from nexus_messaging.retry import HANDLED_ALONE_FROM, Failed, HandedBack, Outcome
from nexus_messaging.settlement import Settlement
from nexus_messaging.tracing import processing_batch

MOST_BYTES: Final = 8 * 1024 * 1024
"""Bytes of bodies in one batch: read into values, they take several times as much."""

BatchHandler = Callable[[Sequence[Delivery]], Awaitable[Sequence[Outcome]]]


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
        taken, self._taken = self._taken, []
        return taken

    async def _work_until_outage(self) -> Exception | Flood:
        while True:
            if not len(self._consumer):
                self._idle.set()
            self._taken = await self._consumer.take(self._most, MOST_BYTES)
            self._idle.clear()
            for group in groups(self._taken):
                with processing_batch(self._consumer.queue, [each.delivery for each in group]):
                    cause = await self._process(group)
                self._taken = self._taken[len(group) :]
                if cause is not None:
                    await self._hand_back(await self._abandon())
                    return cause

    async def _process(self, group: list[Received]) -> Exception | Flood | None:
        if await self._dead_letter_if_crashing(group[0]):
            return self._breaker.flood
        deliveries = [each.delivery for each in group]
        cause: Exception | None = None
        try:
            outcomes = await self._outcomes(deliveries)
        except self._outage.errors as error:
            cause = error
            outcomes = [HandedBack() for _ in group]
        await self._settlement.settle(deliveries, outcomes)
        await self._consumer.ack(group)
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
