"""Consumes one queue over a connection of its own, which is reopened whenever it is lost.

Built on aiormq, the layer below aio-pika: one ack settles a whole batch, and consuming resumes
after any loss of the connection, the channel or the consumer.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import aiormq
import structlog
from aiormq.abc import AbstractChannel

from nexus_messaging.backoff import Backoff
from nexus_messaging.cancellation import stray_cancellation_as_error
from nexus_messaging.connecting import OPEN_TIMEOUT, BrokerUnreachableError, Connection, connect
from nexus_messaging.properties import tolerate_invalid_properties
from nexus_messaging.received import Received
from nexus_messaging.retry import HANDLED_ALONE_FROM
from nexus_messaging.topology import MAX_MESSAGE_BYTES
from nexus_messaging.unacked import UnackedDeliveries

MAX_RECONNECT_PAUSE: Final = 10.0
"""Seconds between attempts to connect, at most."""

MAX_UNACKED_BYTES: Final = 32 * 1024 * 1024
"""Bytes of unsettled message bodies at which reading from the connection pauses.

A prefetch counts messages only (https://www.rabbitmq.com/docs/consumer-prefetch): 2,000 of the
largest messages that the contract allows are half a gigabyte."""

PAUSED_READ_INTERVAL: Final = 10.0
"""Seconds. While reading is paused, the socket is read once in this interval, up to 256 KiB: a
heartbeat may be waiting, and a connection without one for 33 s is considered lost."""

QUIET_TIMEOUT: Final = 2.0
QUIET_POLL: Final = 0.02
"""Seconds that cancelling waits for messages in transit to arrive, and between two checks."""

ACK_APPLY_SECONDS: Final = 0.5
"""Seconds between the last ack and the closing of the connection.

The broker's client of a quorum queue passes on 32 acks at a time. It loses the others if the
connection closes first: their messages are delivered again and count as returned. A single ack for
everything was never lost in tests with this pause.
"""

CONSUMER_CHECK_INTERVAL: Final = 30.0
"""Seconds between two checks that the broker still knows the consumer. RabbitMQ 3.10 may send no
``basic.cancel`` for a queue that is deleted and declared again at once (seen)."""

LOST: Final = (aiormq.exceptions.AMQPError, OSError, TimeoutError, RuntimeError)

REFUSED_BECAUSE: Final[Mapping[type[Exception], str]] = MappingProxyType(
    {
        aiormq.exceptions.ChannelNotFoundEntity: "there is no such queue",
        aiormq.exceptions.ChannelAccessRefused: "the broker's user may not read the queue",
    }
)
REFUSED: Final = tuple(REFUSED_BECAUSE)
"""Errors that need an operator: the topology is missing or is not that of this release."""

log = structlog.get_logger()


class Consumer:
    """Buffers up to ``prefetch`` deliveries of ``queue``, and about ``MAX_UNACKED_BYTES`` bytes.

    ``start_consuming`` and ``cancel_consuming`` may be called at any time; the buffer stays.
    ``fast_reading``: whether a ``DeliveryReader`` or aiormq reads the deliveries.

    Each connection starts with a prefetch of 1. The prefetch is raised when a delivery is acked
    that was returned less than ``HANDLED_ALONE_FROM`` times. A message that crashed the last
    process is therefore delivered alone: messages prefetched with it would be returned as often,
    and be dead-lettered with it.
    """

    def __init__(
        self, url: str, queue: str, *, prefetch: int, name: str, fast_reading: bool = True
    ) -> None:
        tolerate_invalid_properties()
        self.queue = queue
        self._url = url
        self._prefetch = prefetch
        self._name = f"{name} {queue}"
        self._fast_reading = fast_reading
        self._buffer: deque[Received] = deque()
        self._delivery_arrived = asyncio.Event()
        self._should_consume = asyncio.Event()
        self._changed = asyncio.Event()
        self._consume_lock = asyncio.Lock()
        self._ack_lock = asyncio.Lock()
        self._connection: Connection | None = None
        self._channel: AbstractChannel | None = None
        self._tag: str | None = None
        self._unacked = UnackedDeliveries()
        self._rejecting = set[asyncio.Task[None]]()
        self._next_read: asyncio.TimerHandle | None = None
        self._ack_holds = 0
        self._probing = True
        self._unconnected_since = 0.0
        self._cause = "not connected yet"
        self._logged_causes = set[str]()

    @property
    def consuming(self) -> bool:
        """Whether the queue is being consumed."""
        return self._tag is not None

    @property
    def connected(self) -> bool:
        """Whether the connection is open, consuming or not."""
        return self._channel is not None and not self._channel.is_closed

    def fault(self) -> str | None:
        """Return why the queue is not consumed although it should be, or ``None``."""
        if not self._should_consume.is_set() or self.consuming:
            return None
        return f"{self.queue} is not consumed: {self._cause}"

    def disconnected_seconds(self) -> float:
        """Return for how many seconds a connection has been missing while consuming is wanted."""
        if self.connected or not self._should_consume.is_set():
            return 0.0
        return asyncio.get_running_loop().time() - self._unconnected_since

    def __len__(self) -> int:
        """Return the number of buffered deliveries."""
        return len(self._buffer)

    def start_consuming(self) -> None:
        """Start consuming; the connection is opened by ``run``."""
        self._should_consume.set()
        self._unconnected_since = asyncio.get_running_loop().time()
        self._changed.set()

    async def cancel_consuming(self) -> None:
        """Cancel consuming. Deliveries that have arrived stay, and can still be acked.

        A connection that breaks meanwhile is not consumed again.
        """
        self._should_consume.clear()
        self._ack_holds += 1
        try:
            with stray_cancellation_as_error():
                await self._cancel()
        except LOST as error:
            log.warning("cancel_lost", queue=self.queue, cause=type(error).__name__)
        finally:
            self._ack_holds -= 1
        await self._send_acks(harmless=False)

    async def _cancel(self) -> None:
        async with self._consume_lock:
            channel, tag = self._channel, self._tag
            if channel is None or tag is None:
                return
            await self._wait_until_quiet(channel)
            self._tag = None
            if not channel.is_closed:
                await channel.basic_cancel(tag)

    async def _wait_until_quiet(self, channel: AbstractChannel) -> None:
        """Wait until the queue is empty, or the prefetch allows no more while acks are held.

        A message in transit when the cancellation reaches the broker is requeued and counts as
        returned (seen on 3.10).
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + QUIET_TIMEOUT
        while len(self._unacked) < (1 if self._probing else self._prefetch) and clock() < deadline:
            # No timeout here: cancelling a call of aiormq closes its channel.
            queue = await channel.queue_declare(self.queue, passive=True)
            if not queue.message_count:
                return
            await asyncio.sleep(QUIET_POLL)

    async def reset(self) -> None:
        """Close the connection: unacked deliveries return to the queue, without an ack.

        Used after an unexpected error, when it is not known which of them are settled.
        """
        connection = self._connection
        self._discard_channel()
        if connection is not None:
            await connection.close()

    async def run(self) -> None:
        """Connect, consume while wanted, and reconnect after every loss; never returns."""
        backoff = Backoff(0.2, MAX_RECONNECT_PAUSE)
        while True:
            try:
                with stray_cancellation_as_error():
                    await self._run_connection()
                backoff.reset()
            except BrokerUnreachableError as error:
                self._log_cause(str(error))
            except REFUSED as error:
                self._log_cause(REFUSED_BECAUSE[type(error)])
            except Exception as error:  # noqa: BLE001 - aiormq raises even a bare Exception here
                self._log_cause(type(error).__name__)
            await backoff.wait()

    async def receive(self, limit: int, max_bytes: int = MAX_UNACKED_BYTES) -> list[Received]:
        """Wait for a delivery; return the oldest ones, up to ``limit`` and up to ``max_bytes``."""
        while not self._buffer:
            await self.wait_for_delivery()
        received = [self._buffer.popleft()]
        size = len(received[0].body)
        while self._buffer and len(received) < limit:
            size += len(self._buffer[0].body)
            if size > max_bytes:
                break
            received.append(self._buffer.popleft())
        return received

    def receive_nowait(self) -> list[Received]:
        """Return the buffered deliveries without waiting, and empty the buffer."""
        received = list(self._buffer)
        self._buffer.clear()
        return received

    async def wait_for_delivery(self) -> None:
        """Wait for the next delivery to arrive."""
        self._delivery_arrived.clear()
        await self._delivery_arrived.wait()

    async def ack(self, received: Sequence[Received]) -> None:
        """Ack deliveries.

        Deliveries of a closed channel cannot be acked: the broker delivers them again, and
        processing is idempotent.
        """
        current = [each for each in received if each.channel is self._channel]
        if not current:
            return
        self._unacked.settle(each.tag for each in current)
        if self._unacked.bytes < MAX_UNACKED_BYTES and self._connection is not None:
            self._connection.transport.resume_reading()
        await self._send_acks(harmless=current[0].returned < HANDLED_ALONE_FROM)

    def hold_acks(self) -> None:
        """Hold acks from now on, so that they can be sent as one at the end."""
        self._ack_holds += 1

    async def release_acks(self) -> None:
        """Send the held acks and wait until the broker has applied them."""
        self._ack_holds -= 1
        await self._send_acks(harmless=False)
        try:
            if self._channel is not None and not self._channel.is_closed:
                # The answer comes after the ack, from the broker's process that passes acks on.
                with stray_cancellation_as_error():
                    await self._channel.queue_declare(self.queue, passive=True)
        except LOST as error:
            log.warning("ack_lost", queue=self.queue, cause=type(error).__name__)
        await asyncio.sleep(ACK_APPLY_SECONDS)

    async def _send_acks(self, *, harmless: bool) -> None:
        # One at a time: a frame with `multiple` must not overtake the frame of an older delivery,
        # whose tag the broker would then no longer know.
        async with self._ack_lock:
            channel = self._channel
            if self._ack_holds or channel is None or channel.is_closed:
                return
            try:
                with stray_cancellation_as_error():
                    if self._probing and harmless:
                        await self._raise_prefetch(channel)
                    for ack in self._unacked.acks():
                        await channel.basic_ack(ack.tag, multiple=ack.multiple)
            except LOST as error:
                log.warning("ack_lost", queue=self.queue, cause=type(error).__name__)

    async def _raise_prefetch(self, channel: AbstractChannel) -> None:
        # Before the ack, when nothing else is in transit: cancelling would requeue and count it.
        async with self._consume_lock:
            if self._tag is not None:
                await channel.basic_cancel(self._tag)
            await channel.basic_qos(prefetch_count=self._prefetch)
            self._probing = False
            if self._tag is not None and self._connection is not None:
                await self._consume(self._connection, channel)

    async def _consume(self, connection: Connection, channel: AbstractChannel) -> None:
        self._tag = await connection.consume(
            channel,
            self.queue,
            self._on_deliveries,
            lambda: log.warning("fast_reading_ended", queue=self.queue),
        )
        if self._logged_causes:
            self._logged_causes.clear()
            log.info("consuming_again", queue=self.queue)

    async def _run_connection(self) -> None:
        connection = self._connection = await connect(
            self._url, name=self._name, fast_reading=self._fast_reading
        )
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                channel = await connection.amqp.channel(publisher_confirms=False)
                await channel.basic_qos(prefetch_count=1)
            channel.on_consumer_cancel_callbacks.add(self._on_cancel)
            self._channel = channel
            await self._consume_while_wanted(connection, channel)
        finally:
            self._discard_channel()
            await connection.close()

    async def _consume_while_wanted(self, connection: Connection, channel: AbstractChannel) -> None:
        lost = {channel.closing, connection.amqp.closing}
        while not (channel.is_closed or connection.amqp.is_closed):
            self._changed.clear()
            async with self._consume_lock:
                if self._should_consume.is_set() and self._tag is None:
                    await self._consume(connection, channel)
            waiting = asyncio.ensure_future(self._changed.wait())
            try:
                happened, _ = await asyncio.wait(
                    {waiting, *lost},
                    timeout=CONSUMER_CHECK_INTERVAL,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                waiting.cancel()
            if not happened and await self._is_unknown_to_broker(channel):
                self._log_cause(
                    "the broker lost the consumer: the queue was deleted and declared again"
                )
                return
        self._log_cause("the connection was lost")

    async def _is_unknown_to_broker(self, channel: AbstractChannel) -> bool:
        """Whether the queue has no consumer although the broker has confirmed this one."""
        async with self._consume_lock:
            if self._tag is None or len(self._unacked):
                return False
            queue = await channel.queue_declare(self.queue, passive=True)
            return queue.consumer_count == 0

    def _on_deliveries(self, received: list[Received]) -> None:
        if received[0].channel is not self._channel:
            return
        for each in received:
            if len(each.body) > MAX_MESSAGE_BYTES:
                self._start_rejecting(each.tag)
            else:
                self._buffer.append(each)
                self._unacked.add(each.tag, len(each.body))
        self._pause_if_full()
        self._delivery_arrived.set()

    def _start_rejecting(self, tag: int) -> None:
        self._unacked.add(tag, 0)  # an ack of a later delivery must not include it
        rejecting = asyncio.create_task(self._reject(self._unacked, tag))
        self._rejecting.add(rejecting)
        rejecting.add_done_callback(self._rejecting.discard)

    async def _reject(self, unacked: UnackedDeliveries, tag: int) -> None:
        """Reject a message that is too large to be copied; the broker dead-letters it.

        It was published under another limit. A copy would be refused at each attempt, and every
        refusal closes the channel that all other copies use.
        """
        log.warning("message_too_large", queue=self.queue)
        try:
            if self._channel is not None and unacked is self._unacked:
                with stray_cancellation_as_error():
                    await self._channel.basic_reject(tag, requeue=False)
                unacked.forget(tag)
        except LOST as error:
            log.warning("ack_lost", queue=self.queue, cause=type(error).__name__)

    def _pause_reading(self) -> None:
        if self._connection is not None and self._connection.transport.is_reading():
            transport = self._connection.transport
            transport.pause_reading()
            loop = asyncio.get_running_loop()
            if self._next_read is not None:
                self._next_read.cancel()  # otherwise every pause would add one
            self._next_read = loop.call_later(PAUSED_READ_INTERVAL, self._read_once, transport)

    def _read_once(self, transport: asyncio.Transport) -> None:
        transport.resume_reading()
        # The event loop reads in its next iteration; pausing in the second one allows one read.
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._pause_if_full)

    def _pause_if_full(self) -> None:
        if self._unacked.bytes >= MAX_UNACKED_BYTES:
            self._pause_reading()

    async def _on_cancel(self, _frame: aiormq.spec.Basic.Cancel) -> None:
        # Runs in the channel's reader task: closing the channel here would deadlock.
        self._tag = None
        self._log_cause("the broker cancelled it: the queue was deleted or moved")
        self._changed.set()

    def _log_cause(self, cause: str) -> None:
        """Log why the queue is not consumed: each cause once until consuming resumes."""
        self._cause = cause
        if cause not in self._logged_causes:
            self._logged_causes.add(cause)
            log.warning("not_consuming", queue=self.queue, cause=cause)

    def _discard_channel(self) -> None:
        # The buffer belongs to a closed channel: the broker will deliver its messages again.
        if self._channel is not None:
            self._unconnected_since = asyncio.get_running_loop().time()
        self._connection = None
        self._channel = None
        self._tag = None
        self._probing = True
        self._buffer.clear()
        self._unacked = UnackedDeliveries()
