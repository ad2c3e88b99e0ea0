"""The steps that every delivery passes through, for all queues and handlers.

``Pipeline.process`` runs them in order: span, check for a message that crashes consumers, handler,
retry decision, flood guard, settlement, ack.
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
    CrashedConsumers,
    Decision,
    Done,
    Failed,
    HandedBack,
    Outcome,
    Progress,
    decide,
)
from nexus_messaging.settlement import Settled, Settlement

BatchHandler = Callable[[Sequence[Delivery]], Awaitable[Sequence[Outcome]]]
"""Returns the outcome of each delivery, in their order; it must not ack."""

Stop = Callable[[Exception | Flood], None]
"""Called with the outage or the flood that stops the consumption."""

Trace = Callable[[str, Sequence[Delivery]], AbstractContextManager[None]]
"""Makes the span of the work on deliveries of a queue."""


@dataclass(frozen=True, slots=True)
class Outage:
    """The ``errors`` that mean an outage, in which no delivery can be processed, and a ``probe``.

    ``probe`` raises one of ``errors`` during the outage and returns after it.
    """

    errors: tuple[type[Exception], ...]
    probe: Callable[[], Awaitable[None]]


class Pipeline:
    """Processes the deliveries of one queue, from arrival to ack."""

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
        """Process and ack deliveries; call ``stop`` with an outage or a flood.

        A delivery that may crash its consumer must be passed alone.
        """
        with self._trace(self._consumer.queue, received):
            outcomes: Sequence[Outcome]
            if received[0].returned >= CRASHED_FROM:
                outcomes = [CrashedConsumers(received[0].returned)]
            else:
                try:
                    outcomes = await self._call_handler(received)
                except self._outage_errors as error:
                    stop(error)
                    outcomes = [HandedBack() for _ in received]
            if not self._settle_done(received, outcomes):
                now = utc_now()
                settled = [
                    self._apply_guard(each, outcome, decide(outcome, Progress.of(each), now))
                    for each, outcome in zip(received, outcomes, strict=True)
                ]
                await self._settlement.carry_out(settled)
            await self._consumer.ack(received)
        if self._guard.flood is not None:
            stop(self._guard.flood)

    async def hand_back(self, received: Sequence[Received]) -> None:
        """Return deliveries to their queue unprocessed, with unchanged counters, and ack them."""
        back = HandedBack()
        await self._settlement.carry_out(
            [Settled(each, back, decide(back, Progress.of(each), utc_now())) for each in received]
        )
        await self._consumer.ack(received)

    async def _call_handler(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        """Call the handler; on an error other than an outage, halve the batch to find the cause."""
        try:
            return await self._handle(deliveries)
        except self._outage_errors:
            raise
        except Exception as error:
            if len(deliveries) == 1:
                return [Failed(error)]
            middle = len(deliveries) // 2
            first = await self._call_handler(deliveries[:middle])
            return [*first, *await self._call_handler(deliveries[middle:])]

    def _settle_done(self, received: Sequence[Received], outcomes: Sequence[Outcome]) -> bool:
        """Settle a batch at once in which every delivery was processed, as in most batches."""
        done = [outcome for outcome in outcomes if isinstance(outcome, Done)]
        if len(done) < len(outcomes):
            return False
        # A message that an operator moved does not count: see ``FloodGuard.overrule``.
        self._guard.count_processed(
            [outcome.source for each, outcome in zip(received, done, strict=True) if not each.moved]
        )
        self._settlement.count_processed(self._consumer.queue, len(done))
        return True

    def _apply_guard(self, delivery: Delivery, outcome: Outcome, decision: Decision) -> Settled:
        """Return the decision, or a hand-back if the guard holds the dead letter back."""
        back = self._guard.overrule(delivery, decision)
        if back is None:
            return Settled(delivery, outcome, decision)
        instead = decide(back, Progress.of(delivery), utc_now())
        return Settled(delivery, back, instead, held_back=back.tier is not None)
