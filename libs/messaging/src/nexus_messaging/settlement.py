"""Publishes the retry copies and dead letters of deliveries, before these are acked.

No other module publishes them. The broker confirms a copy before the original is acked: a crash in
between makes a duplicate and loses nothing.
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

MAX_PUBLISH_PAUSE: Final = 5.0
"""Seconds between two attempts to publish a copy, at most."""

Failures = Sequence[tuple[Publication, PublishError]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Settled:
    """A delivery, its outcome and the decision that follows.

    ``held_back``: the delivery waits because its source floods the queue with dead letters.
    """

    delivery: Delivery
    outcome: Outcome
    decision: Decision
    held_back: bool = False


class Settlement:
    """Publishes the copies that decisions require, and counts decisions."""

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
        """Publish the copies that decisions require; afterwards the deliveries may be acked.

        Returns only when every copy is confirmed, with no timeout: giving up would lose a message
        or leave the other deliveries of the batch unacked.
        """
        await self._publish([self._copy(each.delivery, each.decision) for each in settled])
        for each in settled:
            self._count(each)

    def count_processed(self, queue: str, number: int) -> None:
        """Count deliveries of one batch that were all processed: nothing is to be published."""
        self._metrics.count_processed(queue, number)

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
        backoff = Backoff(0.1, MAX_PUBLISH_PAUSE)
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
            self._metrics.count_held_back(delivery.queue)
        match settled.decision:
            case Acknowledge():
                self._metrics.count_processed(delivery.queue)
            case Retry(tier):
                self._metrics.count_retry(delivery.queue, tier.name)
                tracing.record_retry(delivery.message.message_id, tier.name)
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
                self._metrics.count_dead_letter(delivery.queue, reason)
                tracing.record_dead_letter(delivery.message.message_id, reason.value)
                log.warning(
                    "message_dead_lettered",
                    queue=delivery.queue,
                    message_id=delivery.message.message_id,
                    reason=reason.value,
                    error=detail,
                )


def home(delivery: Delivery, letter: DeadLetter) -> str:
    """Return the queue whose consumer reads a dead letter, even after a move to another queue.

    The event type in the body decides. If reading the body crashed consumers, the AMQP property
    ``type`` decides. A message that arrived in a queue for outside publishers other than by a move
    is from outside, and stays so when it is moved.
    """
    crashed = letter.reason is Reason.CRASHED_CONSUMER
    came_to = delivery.headers.get(REQUEUE_TO) if delivery.moved else delivery.queue
    return home_queue(
        delivery.message.type if crashed else event_type_of(delivery.body),
        delivery.queue,
        from_outside=came_to in OUTSIDE_QUEUES,
    )
