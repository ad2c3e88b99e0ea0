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

from nexus_messaging.backoff import Backoff
from nexus_messaging.backpressure import MAX_UNACKED_BYTES
from nexus_messaging.cancellation import stray_cancellation_as_error
from nexus_messaging.connecting import BrokerUnreachableError, connect
from nexus_messaging.consuming_channel import LOST, ConsumingChannel, open_channel
from nexus_messaging.properties import tolerate_invalid_properties
from nexus_messaging.received import Received
from nexus_messaging.retry import HANDLED_ALONE_FROM

MAX_RECONNECT_PAUSE: Final = 10.0
"""Seconds between attempts to connect, at most."""

ACK_APPLY_SECONDS: Final = 0.5
"""Seconds between the last ack and the closing of the connection.

The broker's client of a quorum queue passes on 32 acks at a time. It loses the others if the
connection closes first: their messages are delivered again and count as returned. A single ack for
everything was never lost in tests with this pause.
"""

CONSUMER_CHECK_INTERVAL: Final = 30.0
"""Seconds between two checks that the broker still knows the consumer. RabbitMQ 3.10 may send no
``basic.cancel`` for a queue that is deleted and declared again at once (seen)."""

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
        self._ack_lock = asyncio.Lock()
        self._ack_holds = 0
        self._channel: ConsumingChannel | None = None
        self._unconnected_since = 0.0
        self._cause = "not connected yet"
        self._logged_causes = set[str]()

    @property
    def consuming(self) -> bool:
        """Whether the queue is being consumed."""
        return self._channel is not None and self._channel.consuming

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
                if self._channel is not None:
                    await self._channel.cancel()
        except LOST as error:
            log.warning("cancel_lost", queue=self.queue, cause=type(error).__name__)
        finally:
            self._ack_holds -= 1
        await self._send_acks(raise_prefetch=False)

    async def reset(self) -> None:
        """Close the connection: unacked deliveries return to the queue, without an ack.

        Used after an unexpected error, when it is not known which of them are settled.
        """
        channel = self._channel
        self._discard_channel()
        if channel is not None:
            await channel.connection.close()

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
        settled = [] if self._channel is None else self._channel.settle(received)
        if settled:
            await self._send_acks(raise_prefetch=settled[0].returned < HANDLED_ALONE_FROM)

    def hold_acks(self) -> None:
        """Hold acks from now on, so that they can be sent as one at the end."""
        self._ack_holds += 1

    async def release_acks(self) -> None:
        """Send the held acks and wait until the broker has applied them."""
        self._ack_holds -= 1
        await self._send_acks(raise_prefetch=False)
        try:
            if self._channel is not None and not self._channel.is_closed:
                with stray_cancellation_as_error():
                    await self._channel.wait_until_acks_arrived()
        except LOST as error:
            log.warning("ack_lost", queue=self.queue, cause=type(error).__name__)
        await asyncio.sleep(ACK_APPLY_SECONDS)

    async def _send_acks(self, *, raise_prefetch: bool) -> None:
        # One at a time: a frame with `multiple` must not overtake the frame of an older delivery,
        # whose tag the broker would then no longer know.
        async with self._ack_lock:
            channel = self._channel
            if self._ack_holds or channel is None or channel.is_closed:
                return
            try:
                with stray_cancellation_as_error():
                    await channel.send_acks(raise_prefetch=raise_prefetch)
            except LOST as error:
                log.warning("ack_lost", queue=self.queue, cause=type(error).__name__)

    async def _run_connection(self) -> None:
        connection = await connect(self._url, name=self._name, fast_reading=self._fast_reading)
        try:
            channel = self._channel = ConsumingChannel(
                connection,
                await open_channel(connection),
                self.queue,
                prefetch=self._prefetch,
                deliver=self._on_deliveries,
                on_cancelled=self._on_cancelled,
            )
            await self._consume_while_wanted(channel)
        finally:
            self._discard_channel()
            await connection.close()

    async def _consume_while_wanted(self, channel: ConsumingChannel) -> None:
        closing = {channel.amqp.closing, channel.connection.amqp.closing}
        while not any(each.done() for each in closing):
            self._changed.clear()
            if self._should_consume.is_set() and not channel.consuming:
                await channel.consume()
                self._log_consuming()
            waiting = asyncio.ensure_future(self._changed.wait())
            try:
                happened, _ = await asyncio.wait(
                    {waiting, *closing},
                    timeout=CONSUMER_CHECK_INTERVAL,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                waiting.cancel()
            if not happened and await channel.is_unknown_to_broker():
                self._log_cause(
                    "the broker lost the consumer: the queue was deleted and declared again"
                )
                return
        self._log_cause("the connection was lost")

    def _on_deliveries(self, received: list[Received]) -> None:
        if self._channel is not None and received[0].channel is self._channel.amqp:
            self._buffer += self._channel.accept(received)
            self._delivery_arrived.set()

    def _on_cancelled(self) -> None:
        self._log_cause("the broker cancelled it: the queue was deleted or moved")
        self._changed.set()

    def _log_cause(self, cause: str) -> None:
        """Log why the queue is not consumed: each cause once until consuming resumes."""
        self._cause = cause
        if cause not in self._logged_causes:
            self._logged_causes.add(cause)
            log.warning("not_consuming", queue=self.queue, cause=cause)

    def _log_consuming(self) -> None:
        if self._logged_causes:
            self._logged_causes.clear()
            log.info("consuming_again", queue=self.queue)

    def _discard_channel(self) -> None:
        # The buffer belongs to a closed channel: the broker will deliver its messages again.
        if self._channel is not None:
            self._unconnected_since = asyncio.get_running_loop().time()
        self._channel = None
        self._buffer.clear()
