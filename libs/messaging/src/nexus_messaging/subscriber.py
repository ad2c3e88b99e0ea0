"""One-by-one consumption by FastStream, for the queues with little traffic.

FastStream keeps the connection, the subscription and its own metrics; what happens to a message
is decided where it is decided for every other one: in the retry policy and the settlement.
"""

import asyncio
from datetime import datetime
from functools import partial
from typing import Final

import structlog
from aio_pika.abc import AbstractIncomingMessage
from faststream import AckPolicy
from faststream.rabbit import Channel, RabbitBroker, RabbitExchange, RabbitMessage, RabbitQueue
from faststream.rabbit.prometheus import RabbitPrometheusMiddleware
from faststream.rabbit.subscriber import RabbitSubscriber
from prometheus_client import CollectorRegistry
from yarl import URL

from nexus_messaging.cancellation import only_if_asked_for
from nexus_messaging.consumer import LOST, times_returned
from nexus_messaging.consumption import Handler, Outage
from nexus_messaging.lifecycle import Loop
from nexus_messaging.message import Delivery, Message
from nexus_messaging.properties import tolerate_strange_properties
from nexus_messaging.publisher import HEARTBEAT, RECONNECT_INTERVAL
from nexus_messaging.retry import CRASHED_FROM, Failed, HandedBack, Outcome, crashed
from nexus_messaging.settlement import Settlement, utc_now
from nexus_messaging.tracing import processing

PREFETCH: Final = 20

OUTAGE_PAUSE: Final = 1.0
OUTAGE_PATIENCE: Final = 4.0
"""Seconds a message waits in hand before it is handed back to wait in the broker."""

GRACE: Final = 8.0
"""Seconds that stopping waits for handlers: longer than the patience, so that even in an outage
each message is handed back. What is cut off counts as returned, and too often as a crash."""

STOPPED_WITHIN: Final = GRACE + 2.0

log = structlog.get_logger()


def make_broker(url: str, registry: CollectorRegistry, *, service: str) -> RabbitBroker:
    """Return a broker that is not connected yet; handlers get the vendor's message untouched."""
    tolerate_strange_properties()
    return RabbitBroker(
        URL(url).update_query(heartbeat=HEARTBEAT),
        apply_types=False,
        logger=None,
        graceful_timeout=GRACE,
        reconnect_interval=RECONNECT_INTERVAL,
        middlewares=[RabbitPrometheusMiddleware(registry=registry, app_name=service)],
    )


async def stop(broker: RabbitBroker) -> None:
    """Stop ``broker``, on a connection that answers or on one that has fallen silent."""
    try:
        async with asyncio.timeout(STOPPED_WITHIN):
            await broker.stop()
    except TimeoutError:
        log.warning("subscriber_not_stopped", seconds=STOPPED_WITHIN)


def subscribe(
    broker: RabbitBroker, queue: str, handle: Handler, settlement: Settlement, outage: Outage
) -> Loop:
    """Have ``handle`` called for each delivery of ``queue``, and its outcome carried out.

    The queue is the topology's: nothing is declared. The ack is the last step of all. The loop
    that is returned subscribes again once a flood that stopped the subscription is over.
    """
    subscription = _Subscription(queue, handle, settlement, outage)
    subscriber = broker.subscriber(
        RabbitQueue(queue, declare=False),
        RabbitExchange(declare=False),
        channel=Channel(prefetch_count=PREFETCH),
        ack_policy=AckPolicy.MANUAL,
        decoder=_untouched,
        no_reply=True,
    )
    subscriber(subscription.consume)
    return partial(subscription.resume_with, subscriber)


class _Subscription:
    """What happens to the deliveries of one subscriber."""

    def __init__(self, queue: str, handle: Handler, settlement: Settlement, outage: Outage) -> None:
        self._queue = queue
        self._handle = handle
        self._settlement = settlement
        self._outage = outage
        self._breaker = settlement.breakers.of(queue)
        self._cancelled = asyncio.Event()

    async def consume(self, raw: AbstractIncomingMessage) -> None:
        """Handle a delivery, or hand it back if a flood has stopped the subscription."""
        delivery = _delivery(self._queue, raw)
        with processing(delivery):
            await self._settle(delivery)
            if self._breaker.flood is not None:
                await self._cancel(raw)
            await raw.ack()

    async def _settle(self, delivery: Delivery) -> None:
        if self._breaker.flood is not None:
            await self._settlement.settle([delivery], [HandedBack()])
        elif delivery.returned >= CRASHED_FROM:
            await self._settlement.bury(delivery, crashed(delivery, utc_now()))
        else:
            outcome = await _handled(self._handle, delivery, self._outage)
            await self._settlement.settle([delivery], [outcome])

    async def resume_with(self, subscriber: RabbitSubscriber) -> None:
        """Subscribe again whenever a flood that stopped ``subscriber`` is over; never returns."""
        while True:
            await self._cancelled.wait()
            await self._breaker.resumed()
            self._cancelled.clear()
            try:
                await subscriber.stop()  # so that it forgets the consumer that was cancelled
                await subscriber.start()
            except BaseException:
                self._cancelled.set()
                raise
            log.info("consumption_resumed", queue=self._queue)

    async def _cancel(self, raw: AbstractIncomingMessage) -> None:
        """Cancel the consumer that ``raw`` came by, at the broker.

        FastStream's own way lets messages that arrive meanwhile lie unacked. It also makes the
        consumer anew after a lost connection; what comes by that one is met here, too.
        """
        self._cancelled.set()
        try:
            with only_if_asked_for():
                await raw.channel.basic_cancel(raw.consumer_tag or "")
        except LOST as error:
            log.warning("cancel_lost", queue=self._queue, cause=type(error).__name__)


async def _untouched(message: RabbitMessage) -> AbstractIncomingMessage:
    return message.raw_message


async def _handled(handle: Handler, delivery: Delivery, outage: Outage) -> Outcome:
    deadline = asyncio.get_running_loop().time() + OUTAGE_PATIENCE
    while True:
        try:
            return await handle(delivery)
        except outage.errors:
            if asyncio.get_running_loop().time() > deadline:
                return HandedBack()
            await asyncio.sleep(OUTAGE_PAUSE)
        except Exception as error:
            return Failed(error)


def _delivery(queue: str, raw: AbstractIncomingMessage) -> Delivery:
    stamp = raw.timestamp
    return Delivery(
        message=Message(
            body=raw.body,
            message_id=raw.message_id,
            type=raw.type,
            content_type=raw.content_type,
            timestamp=stamp if isinstance(stamp, datetime) else None,
        ),
        queue=queue,
        exchange=raw.exchange or "",
        returned=times_returned(raw.headers, redelivered=bool(raw.redelivered)),
        headers=raw.headers,
    )
