"""Consumes a queue on one connection: the prefetch, the unacked deliveries, and their acks."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import aiormq
import structlog
from aiormq.abc import AbstractChannel

from nexus_messaging.backpressure import Backpressure
from nexus_messaging.cancellation import stray_cancellation_as_error
from nexus_messaging.connecting import OPEN_TIMEOUT, Connection
from nexus_messaging.deliveries import Deliver
from nexus_messaging.received import Received
from nexus_messaging.topology import MAX_MESSAGE_BYTES
from nexus_messaging.unacked import UnackedDeliveries

QUIET_TIMEOUT: Final = 2.0
QUIET_POLL: Final = 0.02
"""Seconds that cancelling waits for messages in transit to arrive, and between two checks."""

LOST: Final = (aiormq.exceptions.AMQPError, OSError, TimeoutError, RuntimeError)
"""What any method raises if the connection or the channel is lost meanwhile."""

log = structlog.get_logger()


async def open_channel(connection: Connection) -> AbstractChannel:
    """Open a channel for a ``ConsumingChannel``, with a prefetch of 1."""
    async with asyncio.timeout(OPEN_TIMEOUT):
        channel = await connection.amqp.channel(publisher_confirms=False)
        await channel.basic_qos(prefetch_count=1)
    return channel


class ConsumingChannel:
    """Consumes ``queue`` with a prefetch of 1, and of ``prefetch`` once that is raised.

    ``deliver`` gets what arrives, and passes it to ``accept``. ``on_cancelled`` is called when the
    broker cancels the consumer.
    """

    def __init__(
        self,
        connection: Connection,
        amqp: AbstractChannel,
        queue: str,
        *,
        prefetch: int,
        deliver: Deliver,
        on_cancelled: Callable[[], None],
    ) -> None:
        self.connection = connection
        self.amqp = amqp
        self.unacked = UnackedDeliveries()
        self.probing = True
        self._queue = queue
        self._prefetch = prefetch
        self._deliver = deliver
        self._on_cancelled = on_cancelled
        self._backpressure = Backpressure(connection.transport, self.unacked)
        self._tag: str | None = None
        self._consume_lock = asyncio.Lock()
        self._rejecting = set[asyncio.Task[None]]()
        amqp.on_consumer_cancel_callbacks.add(self._on_cancel)

    @property
    def consuming(self) -> bool:
        """Whether the queue is being consumed."""
        return self._tag is not None

    @property
    def is_closed(self) -> bool:
        """Whether the channel is closed; the connection may still be open."""
        return self.amqp.is_closed

    async def consume(self) -> None:
        """Start consuming."""
        async with self._consume_lock:
            if self._tag is None:
                await self._consume()

    async def cancel(self) -> None:
        """Cancel consuming, once nothing is in transit. What has arrived can still be acked."""
        async with self._consume_lock:
            tag = self._tag
            if tag is None:
                return
            await self._wait_until_quiet()
            self._tag = None
            if not self.is_closed:
                await self.amqp.basic_cancel(tag)

    def accept(self, received: Sequence[Received]) -> list[Received]:
        """Return the deliveries that can be processed; those that are too large are rejected."""
        accepted = []
        for each in received:
            if len(each.body) > MAX_MESSAGE_BYTES:
                self._start_rejecting(each.tag)
            else:
                accepted.append(each)
                self.unacked.add(each.tag, len(each.body))
        self._backpressure.pause_if_full()
        return accepted

    def settle(self, received: Sequence[Received]) -> list[Received]:
        """Mark the deliveries of this channel as ready to be acked, and return them."""
        own = [each for each in received if each.channel is self.amqp]
        self.unacked.settle(each.tag for each in own)
        self._backpressure.resume_unless_full()
        return own

    async def send_acks(self, *, raise_prefetch: bool) -> None:
        """Ack what is settled; before, raise the prefetch unless it has been raised."""
        if self.probing and raise_prefetch:
            await self._raise_prefetch()
        for ack in self.unacked.acks():
            await self.amqp.basic_ack(ack.tag, multiple=ack.multiple)

    async def wait_until_acks_arrived(self) -> None:
        """Wait for an answer of the broker's process that passes acks on to the queue."""
        await self.amqp.queue_declare(self._queue, passive=True)

    async def is_unknown_to_broker(self) -> bool:
        """Whether the queue has no consumer although the broker has confirmed this one."""
        async with self._consume_lock:
            if self._tag is None or len(self.unacked):
                return False
            queue = await self.amqp.queue_declare(self._queue, passive=True)
            return queue.consumer_count == 0

    async def _consume(self) -> None:
        self._tag = await self.connection.consume(
            self.amqp,
            self._queue,
            self._deliver,
            lambda: log.warning("fast_reading_ended", queue=self._queue),
        )

    async def _raise_prefetch(self) -> None:
        # Before the ack, when nothing else is in transit: cancelling would requeue and count it.
        async with self._consume_lock:
            if self._tag is not None:
                await self.amqp.basic_cancel(self._tag)
            await self.amqp.basic_qos(prefetch_count=self._prefetch)
            self.probing = False
            if self._tag is not None:
                await self._consume()

    async def _wait_until_quiet(self) -> None:
        """Wait until the queue is empty, or the prefetch allows no more while acks are held.

        A message in transit when the cancellation reaches the broker is requeued and counts as
        returned (seen on 3.10).
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + QUIET_TIMEOUT
        while len(self.unacked) < (1 if self.probing else self._prefetch) and clock() < deadline:
            # No timeout here: cancelling a call of aiormq closes its channel.
            queue = await self.amqp.queue_declare(self._queue, passive=True)
            if not queue.message_count:
                return
            await asyncio.sleep(QUIET_POLL)

    def _start_rejecting(self, tag: int) -> None:
        self.unacked.add(tag, 0)  # an ack of a later delivery must not include it
        rejecting = asyncio.create_task(self._reject(tag))
        self._rejecting.add(rejecting)
        rejecting.add_done_callback(self._rejecting.discard)

    async def _reject(self, tag: int) -> None:
        """Reject a message that is too large to be copied; the broker dead-letters it.

        It was published under another limit. A copy would be refused at each attempt, and every
        refusal closes the channel that all other copies use.
        """
        log.warning("message_too_large", queue=self._queue)
        try:
            with stray_cancellation_as_error():
                await self.amqp.basic_reject(tag, requeue=False)
            self.unacked.forget(tag)
        except LOST as error:
            log.warning("ack_lost", queue=self._queue, cause=type(error).__name__)

    async def _on_cancel(self, _frame: aiormq.spec.Basic.Cancel) -> None:
        # Runs in the channel's reader task: closing the channel here would deadlock.
        self._tag = None
        self._on_cancelled()
