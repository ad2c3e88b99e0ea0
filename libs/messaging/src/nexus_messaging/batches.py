"""Consumes a queue in batches: one commit and one ack for many deliveries."""

from collections.abc import Sequence
from typing import Final

from typing_extensions import override

from nexus_messaging.consumer import Consumer
from nexus_messaging.consumption import Consumption
from nexus_messaging.flood import Flood
from nexus_messaging.flood_guard import FloodGuard
from nexus_messaging.pipeline import BatchHandler, Outage
from nexus_messaging.received import Received
from nexus_messaging.retry import HANDLED_ALONE_FROM
from nexus_messaging.settlement import Settlement
from nexus_messaging.tracing import batch_span

MAX_BATCH_BYTES: Final = 8 * 1024 * 1024
"""Bytes of bodies in one batch: parsed values take several times as much memory."""


class BatchConsumption(Consumption):
    """Processes one batch at a time; deliveries that arrive meanwhile are the next batch."""

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
        super().__init__(consumer, handle, settlement, guard, outage, batch_span)
        self._max_size = max_size
        self._batch: list[Received] = []

    @override
    async def _abandon(self) -> list[Received]:
        batch, self._batch = self._batch, []
        return batch

    @override
    async def _process_until_stopped(self) -> Exception | Flood:
        causes: list[Exception | Flood] = []
        while True:
            if not len(self._consumer):
                self._idle.set()
            self._batch = await self._consumer.receive(self._max_size, MAX_BATCH_BYTES)
            self._idle.clear()
            for group in isolate_suspects(self._batch):
                await self._pipeline.process(group, causes.append)
                self._batch = self._batch[len(group) :]
                if causes:
                    await self._pipeline.hand_back(await self._abandon())
                    return causes[0]


def isolate_suspects(received: Sequence[Received]) -> list[list[Received]]:
    """Split deliveries, in order, so that each one that may crash its consumer is alone."""
    split: list[list[Received]] = []
    open_group = False
    for each in received:
        alone = each.returned >= HANDLED_ALONE_FROM
        if alone or not open_group:
            split.append([each])
        else:
            split[-1].append(each)
        open_group = not alone
    return split
