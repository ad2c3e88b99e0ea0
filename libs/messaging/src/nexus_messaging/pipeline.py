"""What every delivery goes through, whatever its queue and whoever its handler.

``Pipeline.process`` is the list: trace, guard against a message that kills its reader, handler,
retry decision, dead-letter limit, settlement, ack.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from nexus_messaging.clock import utc_now
from nexus_messaging.consumer import Consumer
from nexus_messaging.flood import Flood
from nexus_messaging.flood_guard import FloodGuard
from nexus_messaging.message import Delivery
from nexus_messaging.received import Received
from nexus_messaging.retry import (
    CRASHED_FROM,
    Decision,
    Failed,
    HandedBack,
    KilledReaders,
    Outcome,
    Progress,
    decide,
)
from nexus_messaging.settlement import Settled, Settlement

BatchHandler = Callable[[Sequence[Delivery]], Awaitable[Sequence[Outcome]]]
"""Returns what happened to each delivery, in their order, and never acks."""

Stop = Callable[[Exception | Flood], None]
"""Is called with what stops the consumption: an outage or a flood."""

Trace = Callable[[str, Sequence[Delivery]], AbstractContextManager[None]]
"""Spans the work on deliveries of a queue while its context lasts."""


@dataclass(frozen=True, slots=True)
class Outage:
    """What means that no delivery can be processed now, and how to ask whether that has ended.

    ``probe`` returns when processing may go on and raises one of ``errors`` while it may not.
    """

    errors: tuple[type[Exception], ...]
    probe: Callable[[], Awaitable[None]]


class Pipeline:
    """The way of a queue's deliveries from their arrival to their ack."""

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
        self._handle = handle
        self._settlement = settlement
        self._guard = guard
        self._outage_errors = outage.errors
        self._trace = trace

    async def process(self, received: Sequence[Received], stop: Stop) -> None:
        """Take deliveries all the way; ``stop`` learns of an outage or a flood as it is found.

        A delivery that may have killed its readers comes alone.
        """
        deliveries = [each.delivery for each in received]
        with self._trace(self._consumer.queue, deliveries):
            outcomes: Sequence[Outcome]
            if deliveries[0].returned >= CRASHED_FROM:
                outcomes = [KilledReaders(deliveries[0].returned)]
            else:
                try:
                    outcomes = await self._handled(deliveries)
                except self._outage_errors as error:
                    stop(error)
                    outcomes = [HandedBack() for _ in deliveries]
            now = utc_now()
            settled = [
                self._limited(delivery, outcome, decide(outcome, Progress.of(delivery), now))
                for delivery, outcome in zip(deliveries, outcomes, strict=True)
            ]
            await self._settlement.carry_out(settled)
            await self._consumer.ack(received)
        if self._guard.flood is not None:
            stop(self._guard.flood)

    async def hand_back(self, received: Sequence[Received]) -> None:
        """Return deliveries to their queue, unprocessed and unblamed, and ack them."""
        back = HandedBack()
        await self._settlement.carry_out(
            [
                Settled(each.delivery, back, decide(back, Progress.of(each.delivery), utc_now()))
                for each in received
            ]
        )
        await self._consumer.ack(received)

    async def _handled(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        """Call the handler; pin a fault that is no outage on its delivery by halving the batch."""
        try:
            return await self._handle(deliveries)
        except self._outage_errors:
            raise
        except Exception as error:
            if len(deliveries) == 1:
                return [Failed(error)]
            middle = len(deliveries) // 2
            first = await self._handled(deliveries[:middle])
            return [*first, *await self._handled(deliveries[middle:])]

    def _limited(self, delivery: Delivery, outcome: Outcome, decision: Decision) -> Settled:
        """Let a decision stand, unless it is one dead letter too many: that is handed back."""
        back = self._guard.overrule(delivery, decision)
        if back is None:
            return Settled(delivery, outcome, decision)
        instead = decide(back, Progress.of(delivery), utc_now())
        return Settled(delivery, back, instead, held_back=back.tier is not None)
