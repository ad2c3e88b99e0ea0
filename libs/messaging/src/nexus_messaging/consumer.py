"""Deliveries of one queue, over a connection of its own that is made anew whenever it is lost.

Built on aiormq, the layer below aio-pika: one ack for a whole batch, and the queue is consumed
again after any kind of loss, a consumer cancelled by the broker included.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import aiormq
import structlog
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from yarl import URL

from nexus_messaging.cancellation import only_if_asked_for
from nexus_messaging.message import Delivery, Message
from nexus_messaging.properties import tolerate_strange_properties

LONGEST_PAUSE: Final = 10.0

HEARTBEAT: Final = 10
"""Seconds; a connection that stays silent for a few of them counts as lost."""

LOST: Final = (aiormq.exceptions.AMQPError, OSError, TimeoutError, RuntimeError)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Received:
    """A delivery and the channel whose tag acks it: a tag means nothing on another channel."""

    delivery: Delivery
    channel: AbstractChannel
    tag: int


class Consumer:
    """Keeps up to ``prefetch`` deliveries of ``queue`` at hand.

    ``open`` and ``shut`` start and cancel consuming at any time; what is buffered stays.
    """

    def __init__(self, url: str, queue: str, *, prefetch: int, name: str) -> None:
        tolerate_strange_properties()
        self.queue = queue
        self._url = url
        self._prefetch = prefetch
        self._name = name
        self._buffer: deque[Received] = deque()
        self._arrived = asyncio.Event()
        self._wanted = asyncio.Event()
        self._changed = asyncio.Event()
        self._turning = asyncio.Lock()
        self._channel: AbstractChannel | None = None
        self._tag: str | None = None

    @property
    def consuming(self) -> bool:
        """Whether the broker would deliver now."""
        return self._tag is not None

    @property
    def connected(self) -> bool:
        """Whether the connection stands, consuming or not."""
        return self._channel is not None and not self._channel.is_closed

    def __len__(self) -> int:
        """Return the number of buffered deliveries."""
        return len(self._buffer)

    def open(self) -> None:
        """Consume from now on."""
        self._wanted.set()
        self._changed.set()

    async def shut(self) -> None:
        """Cancel consuming: nothing new arrives, and what arrived stays ours to settle.

        Should the connection break meanwhile, nothing is consumed either.
        """
        self._wanted.clear()
        async with self._turning:
            tag, self._tag = self._tag, None
            if tag is not None and self._channel is not None and not self._channel.is_closed:
                try:
                    with only_if_asked_for():
                        await self._channel.basic_cancel(tag)
                except LOST as error:
                    log.warning("cancel_lost", queue=self.queue, cause=type(error).__name__)

    async def run(self) -> None:
        """Connect, consume while wanted, and begin again whenever that ends; never returns."""
        pause = 0.2
        while True:
            try:
                with only_if_asked_for():
                    await self._session()
                pause = 0.2
            except Exception as error:  # noqa: BLE001 - aiormq lets even a bare Exception out of here
                log.warning("broker_lost", queue=self.queue, cause=type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def take(self, most: int) -> list[Received]:
        """Wait for deliveries and return up to ``most`` of them, oldest first."""
        while not self._buffer:
            self._arrived.clear()
            await self._arrived.wait()
        return [self._buffer.popleft() for _ in range(min(most, len(self._buffer)))]

    def take_all(self) -> list[Received]:
        """Return whatever is buffered, at once."""
        received = list(self._buffer)
        self._buffer.clear()
        return received

    async def ack(self, received: Received, *, multiple: bool = False) -> None:
        """Ack a delivery, or with ``multiple`` every delivery up to it.

        On a channel that is gone there is nothing to ack: the broker delivers again, and
        processing is idempotent.
        """
        if received.channel is self._channel and not received.channel.is_closed:
            try:
                with only_if_asked_for():
                    await received.channel.basic_ack(received.tag, multiple=multiple)
            except LOST as error:
                log.warning("ack_lost", queue=self.queue, cause=type(error).__name__)

    async def _session(self) -> None:
        connection = await aiormq.connect(
            URL(self._url).update_query(heartbeat=HEARTBEAT),
            client_properties={"connection_name": f"{self._name} {self.queue}"},
        )
        try:
            self._channel = await connection.channel(publisher_confirms=False)
            self._channel.on_consumer_cancel_callbacks.add(self._cancelled)
            await self._channel.basic_qos(prefetch_count=self._prefetch)
            await self._consume_while_wanted(connection, self._channel)
        finally:
            self._forget()
            await connection.close()

    async def _consume_while_wanted(
        self, connection: AbstractConnection, channel: AbstractChannel
    ) -> None:
        while not (channel.is_closed or connection.is_closed):
            self._changed.clear()
            async with self._turning:
                if self._wanted.is_set() and self._tag is None:
                    answer = await channel.basic_consume(self.queue, self._received)
                    self._tag = answer.consumer_tag
            waiting = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait(
                    {waiting, channel.closing, connection.closing},
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                waiting.cancel()

    async def _received(self, message: DeliveredMessage) -> None:
        if message.channel is self._channel and message.delivery_tag is not None:
            delivery = _delivery(self.queue, message)
            self._buffer.append(Received(delivery, message.channel, message.delivery_tag))
            self._arrived.set()

    async def _cancelled(self, _frame: aiormq.spec.Basic.Cancel) -> None:
        # Called by the channel's reader, which would wait for itself if this closed the channel.
        log.warning("consumer_cancelled_by_broker", queue=self.queue)
        self._tag = None
        self._changed.set()

    def _forget(self) -> None:
        # What was buffered belongs to a channel that is gone: the broker will deliver it again.
        self._channel = None
        self._tag = None
        self._buffer.clear()


def _delivery(queue: str, message: DeliveredMessage) -> Delivery:
    properties = message.header.properties
    headers: Mapping[str, object] = properties.headers or {}
    stamp = properties.timestamp
    return Delivery(
        message=Message(
            body=bytes(message.body),
            message_id=properties.message_id,
            type=properties.message_type,
            content_type=properties.content_type,
            timestamp=stamp if isinstance(stamp, datetime) else None,
        ),
        queue=queue,
        exchange=message.exchange or "",
        returned=times_returned(headers, redelivered=bool(message.redelivered)),
        headers=headers,
    )


def times_returned(headers: Mapping[str, object], *, redelivered: bool) -> int:
    """Return the quorum queue's own count of a message's earlier deliveries without an ack.

    It counts only on a redelivery. Before one, the header is another queue's: *Move messages*
    takes along how often the dead letter was looked at.
    """
    count = headers.get("x-delivery-count", 0) if redelivered else 0
    return count if isinstance(count, int) else 0
