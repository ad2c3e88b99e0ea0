"""Consumption in batches: one commit and one ack for many deliveries."""

from collections.abc import Sequence
from typing import Final

from nexus_messaging.consumer import Consumer
from nexus_messaging.consumption import Consumption
from nexus_messaging.flood import Flood
from nexus_messaging.flood_guard import FloodGuard
from nexus_messaging.pipeline import BatchHandler, Outage
from nexus_messaging.received import Received
from nexus_messaging.retry import HANDLED_ALONE_FROM
from nexus_messaging.settlement import Settlement
from nexus_messaging.tracing import processing_batch

MOST_BYTES: Final = 8 * 1024 * 1024
"""Bytes of bodies in one batch: read into values, they take several times as much."""


class BatchConsumption(Consumption):
    """Batches, one after the other: what arrived while one was processed is the next."""

    def __init__(
        self,
        consumer: Consumer,
        handle: BatchHandler,
        settlement: Settlement,
        guard: FloodGuard,
        outage: Outage,
        *,
        max_size: int = 500,
    ) -> None:
        super().__init__(consumer, handle, settlement, guard, outage, processing_batch)
        self._max_size = max_size
        self._taken: list[Received] = []

    async def _abandon(self) -> list[Received]:
        taken, self._taken = self._taken, []
        return taken

    async def _work_until_stopped(self) -> Exception | Flood:
        causes: list[Exception | Flood] = []
        while True:
            if not len(self._consumer):
                self._idle.set()
            self._taken = await self._consumer.take(self._max_size, MOST_BYTES)
            self._idle.clear()
            for group in groups(self._taken):
                await self._pipeline.process(group, causes.append)
                self._taken = self._taken[len(group) :]
                if causes:
                    await self._pipeline.hand_back(await self._abandon())
                    return causes[0]


def groups(received: Sequence[Received]) -> list[list[Received]]:
    """Split deliveries, in order, so that each suspect of killing its reader stands alone."""
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
