"""Deliveries of one queue, over a connection of its own that is made anew whenever it is lost.

Built on aiormq, the layer below aio-pika: one ack for a whole batch, and the queue is consumed
again after any kind of loss, a consumer cancelled by the broker included.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import aiormq
import structlog
from aiormq.abc import AbstractChannel, DeliveredMessage

from nexus_messaging.backoff import Backoff
from nexus_messaging.cancellation import only_if_asked_for
from nexus_messaging.connecting import OPEN_TIMEOUT, BrokerUnreachableError, Connection, connect
from nexus_messaging.in_hand import InHand
from nexus_messaging.properties import tolerate_strange_properties
from nexus_messaging.received import Received, delivery_of
from nexus_messaging.retry import HANDLED_ALONE_FROM
from nexus_messaging.topology import MAX_MESSAGE_BYTES

LONGEST_PAUSE: Final = 10.0

BYTES_IN_HAND: Final = 32 * 1024 * 1024
"""Bytes of bodies that are not acked, beyond which nothing more is read from the connection.

A prefetch counts messages only (https://www.rabbitmq.com/docs/consumer-prefetch): of the largest
that the contract allows, 2,000 are half a gigabyte."""

READ_AGAIN_AFTER: Final = 10.0
"""Seconds without reading after which the socket is read once in any case, a quarter of a megabyte:
a heartbeat may be waiting, and a connection that seems silent for 33 s counts as lost."""

QUIET_WITHIN: Final = 2.0
QUIET_POLL: Final = 0.02
"""Seconds that cancelling waits until nothing is on its way to us, and between looks."""

APPLIED_WITHIN: Final = 0.5
"""Seconds between the last ack and the closing of the connection. The broker's side of a quorum
queue passes on 32 acks at a time and forgets the others if the connection closes meanwhile; their
messages come again, counted as returned. One ack for everything, given this time, was never lost.
"""

LOOKED_AFTER: Final = 30.0
"""Seconds without a change after which the broker is asked whether it knows of the consumer. Of a
queue that was deleted and made anew at once, RabbitMQ 3.10 may tell nothing (seen)."""

LOST: Final = (aiormq.exceptions.AMQPError, OSError, TimeoutError, RuntimeError)

REFUSED_BECAUSE: Final[Mapping[type[Exception], str]] = MappingProxyType(
    {
        aiormq.exceptions.ChannelNotFoundEntity: "there is no such queue",
        aiormq.exceptions.ChannelAccessRefused: "the broker's user may not read the queue",
    }
)
REFUSED: Final = tuple(REFUSED_BECAUSE)
"""What only a person can mend: the topology is not applied, or not as this release needs it."""

log = structlog.get_logger()


class Consumer:
    """Keeps up to ``prefetch`` deliveries of ``queue`` at hand, and about ``BYTES_IN_HAND`` bytes.

    ``open`` and ``shut`` start and cancel consuming at any time; what is buffered stays.

    Each connection begins with a single delivery at hand, until one has ended that was not
    returned too often. If the last process was killed by a message, that one is met alone: what is
    in hand with it would be returned as often, and be given up with it.
    """

    def __init__(self, url: str, queue: str, *, prefetch: int, name: str) -> None:
        tolerate_strange_properties()
        self.queue = queue
        self._url = url
        self._prefetch = prefetch
        self._name = f"{name} {queue}"
        self._buffer: deque[Received] = deque()
        self._arrived = asyncio.Event()
        self._wanted = asyncio.Event()
        self._changed = asyncio.Event()
        self._turning = asyncio.Lock()
        self._acking = asyncio.Lock()
        self._connection: Connection | None = None
        self._channel: AbstractChannel | None = None
        self._tag: str | None = None
        self._in_hand = InHand()
        self._next_read: asyncio.TimerHandle | None = None
        self._holds = 0
        self._narrow = True
        self._unconnected_since = 0.0
        self._cause = "not connected yet"
        self._noted = set[str]()

    @property
    def consuming(self) -> bool:
        """Whether the broker would deliver now."""
        return self._tag is not None

    @property
    def connected(self) -> bool:
        """Whether the connection stands, consuming or not."""
        return self._channel is not None and not self._channel.is_closed

    def fault(self) -> str | None:
        """Say why nothing is consumed although it should be, if that is so."""
        if not self._wanted.is_set() or self.consuming:
            return None
        return f"{self.queue} is not consumed: {self._cause}"

    def unconnected(self) -> float:
        """Return for how many seconds there has been no connection although one is wanted."""
        if self.connected or not self._wanted.is_set():
            return 0.0
        return asyncio.get_running_loop().time() - self._unconnected_since

    def __len__(self) -> int:
        """Return the number of buffered deliveries."""
        return len(self._buffer)

    def open(self) -> None:
        """Consume from now on."""
        self._wanted.set()
        self._unconnected_since = asyncio.get_running_loop().time()
        self._changed.set()

    async def shut(self) -> None:
        """Cancel consuming: nothing new arrives, and what arrived stays ours to settle.

        Should the connection break meanwhile, nothing is consumed either.
        """
        self._wanted.clear()
        self._holds += 1
        try:
            with only_if_asked_for():
                await self._cancel()
        except LOST as error:
            log.warning("cancel_lost", queue=self.queue, cause=type(error).__name__)
        finally:
            self._holds -= 1
        await self._send_acks(proven=False)

    async def _cancel(self) -> None:
        async with self._turning:
            channel, tag = self._channel, self._tag
            if channel is None or tag is None:
                return
            await self._quiet(channel)
            self._tag = None
            if not channel.is_closed:
                await channel.basic_cancel(tag)

    async def _quiet(self, channel: AbstractChannel) -> None:
        """Wait until the broker has nothing to send, or may not send more while acks are held.

        What is on its way when the cancellation reaches the broker goes back to the queue, counted
        as returned (seen on 3.10).
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + QUIET_WITHIN
        while len(self._in_hand) < (1 if self._narrow else self._prefetch) and clock() < deadline:
            # Not under a time limit: cancelling a call of aiormq's closes its channel.
            queue = await channel.queue_declare(self.queue, passive=True)
            if not queue.message_count:
                return
            await asyncio.sleep(QUIET_POLL)

    async def reset(self) -> None:
        """Drop the connection: whatever is in hand returns to the queue, and no ack is sent for it.

        For faults that nobody foresaw, after which it is not known what was done.
        """
        connection = self._connection
        self._forget()
        if connection is not None:
            await connection.close()

    async def run(self) -> None:
        """Connect, consume while wanted, and begin again whenever that ends; never returns."""
        backoff = Backoff(0.2, LONGEST_PAUSE)
        while True:
            try:
                with only_if_asked_for():
                    await self._session()
                backoff.reset()
            except BrokerUnreachableError as error:
                self._note(str(error))
            except REFUSED as error:
                self._note(REFUSED_BECAUSE[type(error)])
            except Exception as error:  # noqa: BLE001 - aiormq lets even a bare Exception out of here
                self._note(type(error).__name__)
            await backoff.wait()

    async def take(self, most: int, most_bytes: int = BYTES_IN_HAND) -> list[Received]:
        """Wait for deliveries and return the oldest: up to ``most``, ending at ``most_bytes``."""
        while not self._buffer:
            await self.arrival()
        taken = [self._buffer.popleft()]
        size = len(taken[0].delivery.message.body)
        while self._buffer and len(taken) < most:
            size += len(self._buffer[0].delivery.message.body)
            if size > most_bytes:
                break
            taken.append(self._buffer.popleft())
        return taken

    def take_all(self) -> list[Received]:
        """Return whatever is buffered, at once."""
        received = list(self._buffer)
        self._buffer.clear()
        return received

    async def arrival(self) -> None:
        """Return when the next delivery arrives."""
        self._arrived.clear()
        await self._arrived.wait()

    async def ack(self, received: Sequence[Received]) -> None:
        """Ack deliveries.

        On a channel that is gone there is nothing to ack: the broker delivers again, and
        processing is idempotent.
        """
        ours = [each for each in received if each.channel is self._channel]
        if not ours:
            return
        self._in_hand.settle(each.tag for each in ours)
        if self._in_hand.bytes < BYTES_IN_HAND and self._connection is not None:
            self._connection.transport.resume_reading()
        await self._send_acks(proven=ours[0].delivery.returned < HANDLED_ALONE_FROM)

    def hold_acks(self) -> None:
        """Keep acks back from now on, so that the last ones can be sent as one."""
        self._holds += 1

    async def release_acks(self) -> None:
        """Send the acks that were kept back, and return when the broker has applied them."""
        self._holds -= 1
        await self._send_acks(proven=False)
        try:
            if self._channel is not None and not self._channel.is_closed:
                # Answered behind the ack, by the process that passes acks on.
                await self._channel.queue_declare(self.queue, passive=True)
        except LOST as error:
            log.warning("ack_lost", queue=self.queue, cause=type(error).__name__)
        await asyncio.sleep(APPLIED_WITHIN)

    async def _send_acks(self, *, proven: bool) -> None:
        # One after the other: a frame that speaks for older deliveries, too, must not overtake the
        # frame of one of them, whose tag the broker would not know any more.
        async with self._acking:
            channel = self._channel
            if self._holds or channel is None or channel.is_closed:
                return
            try:
                with only_if_asked_for():
                    if self._narrow and proven:
                        await self._widen(channel)
                    for ack in self._in_hand.acks():
                        await channel.basic_ack(ack.tag, multiple=ack.multiple)
            except LOST as error:
                log.warning("ack_lost", queue=self.queue, cause=type(error).__name__)

    async def _widen(self, channel: AbstractChannel) -> None:
        # Before the ack: nothing else is on its way, or the broker would take it back and count it.
        async with self._turning:
            if self._tag is not None:
                await channel.basic_cancel(self._tag)
            await channel.basic_qos(prefetch_count=self._prefetch)
            self._narrow = False
            if self._tag is not None:
                await self._consume(channel)

    async def _consume(self, channel: AbstractChannel) -> None:
        answer = await channel.basic_consume(self.queue, self._received)
        self._tag = answer.consumer_tag
        if self._noted:
            self._noted.clear()
            log.info("consuming_again", queue=self.queue)

    async def _session(self) -> None:
        connection = self._connection = await connect(self._url, name=self._name)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                channel = await connection.amqp.channel(publisher_confirms=False)
                await channel.basic_qos(prefetch_count=1)
            channel.on_consumer_cancel_callbacks.add(self._cancelled)
            self._channel = channel
            await self._consume_while_wanted(connection, channel)
        finally:
            self._forget()
            await connection.close()

    async def _consume_while_wanted(self, connection: Connection, channel: AbstractChannel) -> None:
        lost = {channel.closing, connection.amqp.closing}
        while not (channel.is_closed or connection.amqp.is_closed):
            self._changed.clear()
            async with self._turning:
                if self._wanted.is_set() and self._tag is None:
                    await self._consume(channel)
            waiting = asyncio.ensure_future(self._changed.wait())
            try:
                happened, _ = await asyncio.wait(
                    {waiting, *lost}, timeout=LOOKED_AFTER, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                waiting.cancel()
            if not happened and await self._is_forgotten(channel):
                self._note("the broker has forgotten it: the queue was deleted and made anew")
                return
        self._note("the connection was lost")

    async def _is_forgotten(self, channel: AbstractChannel) -> bool:
        """Whether the queue has no consumer although this one has been answered to be one."""
        async with self._turning:
            if self._tag is None or len(self._in_hand):
                return False
            queue = await channel.queue_declare(self.queue, passive=True)
            return queue.consumer_count == 0

    async def _received(self, message: DeliveredMessage) -> None:
        if message.channel is not self._channel or message.delivery_tag is None:
            return
        if len(message.body) > MAX_MESSAGE_BYTES:
            await self._reject(message.delivery_tag)
            return
        delivery = delivery_of(self.queue, message)
        self._buffer.append(Received(delivery, message.channel, message.delivery_tag))
        self._in_hand.add(message.delivery_tag, len(delivery.message.body))
        self._pause_if_full()
        self._arrived.set()

    async def _reject(self, tag: int) -> None:
        """Have the broker dead-letter a message that is too large to be copied.

        It was published under another limit. A copy would be refused again and again, and every
        refusal closes the channel of all other copies.
        """
        log.warning("message_too_large", queue=self.queue)
        try:
            if self._channel is not None:
                await self._channel.basic_reject(tag, requeue=False)
        except LOST as error:
            log.warning("ack_lost", queue=self.queue, cause=type(error).__name__)

    def _pause_reading(self) -> None:
        if self._connection is not None and self._connection.transport.is_reading():
            transport = self._connection.transport
            transport.pause_reading()
            loop = asyncio.get_running_loop()
            if self._next_read is not None:
                self._next_read.cancel()  # or there would be one for each pause, from then on
            self._next_read = loop.call_later(READ_AGAIN_AFTER, self._read_once, transport)

    def _read_once(self, transport: asyncio.Transport) -> None:
        transport.resume_reading()
        # The loop reads when it goes round next: pausing at its second round is after one read.
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._pause_if_full)

    def _pause_if_full(self) -> None:
        if self._in_hand.bytes >= BYTES_IN_HAND:
            self._pause_reading()

    async def _cancelled(self, _frame: aiormq.spec.Basic.Cancel) -> None:
        # Called by the channel's reader, which would wait for itself if this closed the channel.
        self._tag = None
        self._note("the broker cancelled it: the queue was deleted or moved")
        self._changed.set()

    def _note(self, cause: str) -> None:
        """Log why nothing is consumed: each cause once, until the queue is consumed again."""
        self._cause = cause
        if cause not in self._noted:
            self._noted.add(cause)
            log.warning("not_consuming", queue=self.queue, cause=cause)

    def _forget(self) -> None:
        # What was buffered belongs to a channel that is gone: the broker will deliver it again.
        if self._channel is not None:
            self._unconnected_since = asyncio.get_running_loop().time()
        self._connection = None
        self._channel = None
        self._tag = None
        self._narrow = True
        self._buffer.clear()
        self._in_hand = InHand()
