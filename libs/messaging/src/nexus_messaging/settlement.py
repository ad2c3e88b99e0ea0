"""Carrying out what was decided about a delivery, before it is acked.

The one place where retries and dead letters come into being. A copy is confirmed by the broker
before the original may be acked: a crash in between makes a duplicate, never a loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from nexus_contracts.envelope import event_type_of
from nexus_messaging import tracing
from nexus_messaging.backoff import Backoff
from nexus_messaging.clock import utc_now
from nexus_messaging.errors import PublishError, where
from nexus_messaging.message import Delivery
from nexus_messaging.metrics import MessagingMetrics
from nexus_messaging.publisher import Publication, Publisher
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import (
    REQUEUE_TO,
    Acknowledge,
    DeadLetter,
    Decision,
    Failed,
    Outcome,
    Retry,
)
from nexus_messaging.topology import DEAD, OUTSIDE_QUEUES, home_queue
from nexus_messaging.unconfirmed import Unconfirmed

LONGEST_PAUSE: Final = 5.0

Failures = Sequence[tuple[Publication, PublishError]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Settled:
    """What follows for a delivery, and from what.

    ``held_back``: it waits because its source floods the queue with dead letters.
    """

    delivery: Delivery
    outcome: Outcome
    decision: Decision
    held_back: bool = False


class Settlement:
    """Publishes the copies that decisions ask for and counts what was decided."""

    def __init__(
        self,
        publisher: Publisher,
        metrics: MessagingMetrics,
        *,
        service: str,
    ) -> None:
        self._publisher = publisher
        self._metrics = metrics
        self._service = service
        self._unconfirmed = Unconfirmed()

    async def carry_out(self, settled: Sequence[Settled]) -> None:
        """Publish the copies that follow from decisions; afterwards the deliveries may be acked.

        Returns only once every copy is confirmed, however long the broker takes: giving up would
        mean either losing a message or acking none of its neighbours.
        """
        await self._publish([self._copy(each.delivery, each.decision) for each in settled])
        for each in settled:
            self._count(each)

    def _copy(self, delivery: Delivery, decision: Decision) -> Publication | None:
        match decision:
            case Acknowledge():
                return None
            case Retry(tier, progress):
                message = replace(delivery.message, headers=progress.headers())
                return Publication(tier.name, delivery.queue, message)
            case DeadLetter():
                headers = decision.headers(
                    service=self._service, requeue_to=home(delivery, decision), now=utc_now()
                )
                return Publication(DEAD, delivery.queue, replace(delivery.message, headers=headers))

    async def _publish(self, copies: Sequence[Publication | None]) -> None:
        waiting = [copy for copy in copies if copy is not None]
        if waiting and (failed := await self._attempt(waiting)):
            with self._unconfirmed.waiting(len(failed)):
                await self._repeat(failed)

    async def _repeat(self, failed: Failures) -> None:
        backoff = Backoff(0.1, LONGEST_PAUSE)
        while failed:
            await backoff.wait()
            self._unconfirmed.log_once(failed[0][1])
            failed = await self._attempt([copy for copy, _ in failed])

    async def _attempt(self, copies: Sequence[Publication]) -> Failures:
        results = await self._publisher.publish_all(copies)
        return [
            (copy, error) for copy, error in zip(copies, results, strict=True) if error is not None
        ]

    def _count(self, settled: Settled) -> None:
        delivery, outcome = settled.delivery, settled.outcome
        if settled.held_back:
            self._metrics.held_back(delivery.queue)
        match settled.decision:
            case Acknowledge():
                self._metrics.settled(delivery.queue)
            case Retry(tier):
                self._metrics.retried(delivery.queue, tier.name)
                tracing.retried(delivery.message.message_id, tier.name)
                if isinstance(outcome, Failed):
                    log.info(
                        "message_retried",
                        queue=delivery.queue,
                        message_id=delivery.message.message_id,
                        tier=tier.name,
                        error=type(outcome.error).__name__,
                        where=where(outcome.error),
                    )
            case DeadLetter(reason, detail):
                self._metrics.dead_lettered(delivery.queue, reason)
                tracing.dead_lettered(delivery.message.message_id, reason.value)
                log.warning(
                    "message_dead_lettered",
                    queue=delivery.queue,
                    message_id=delivery.message.message_id,
                    reason=reason.value,
                    error=detail,
                )


def home(delivery: Delivery, letter: DeadLetter) -> str:
    """Name the queue whose consumer reads a dead letter, wherever it was moved meanwhile.

    The type in the body decides, as it does for every reader; where reading the body killed
    consumers, the AMQP property ``type`` does. What a queue for outside publishers got otherwise
    than by a move is from outside, and stays so when it is moved.
    """
    crashed = letter.reason is Reason.CRASHED_CONSUMER
    message = delivery.message
    came_to = delivery.headers.get(REQUEUE_TO) if delivery.moved else delivery.queue
    return home_queue(
        message.type if crashed else event_type_of(message.body),
        delivery.queue,
        from_outside=came_to in OUTSIDE_QUEUES,
    )
