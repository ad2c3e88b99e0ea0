"""Publishes persistent, mandatory messages and waits for the confirm, with a timeout.

When ``publish`` returns, the message is on disk in a queue. The publisher has a connection of its
own: a broker in alarm stops reading from connections that publish, and would not read acks either.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

import aiormq
import structlog
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from nexus_messaging.cancellation import stray_cancellation_as_error
from nexus_messaging.connecting import OPEN_TIMEOUT, BrokerUnreachableError, Connection, connect
from nexus_messaging.errors import PublishError, PublishTimeoutError, UnroutableError
from nexus_messaging.message import Message
from nexus_messaging.refusals import refusal_of

PUBLISH_TIMEOUT: Final = 10.0
"""Seconds for a confirm: a broker in alarm neither confirms nor refuses."""

RECONNECT_INTERVAL: Final = 1.0
"""Seconds between attempts to connect."""

MAX_IN_FLIGHT: Final = 200
"""Messages of ``publish_all`` that wait for their confirms at once."""

PERSISTENT: Final = 2
"""The delivery mode of a message that survives a restart of the broker."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Publication:
    """A message, the exchange and the routing key."""

    exchange: str
    routing_key: str
    message: Message


class Publisher:
    """Publishes on one channel, which is reopened whenever it or its connection is lost.

    It does not use aio-pika's robust channel: if a connection is lost again while it is restored,
    that channel may stay closed although the connection is open.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = f"{name} publisher"
        self._connection: Connection | None = None
        self._channel: AbstractChannel | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._in_flight = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._on_failure: Callable[[PublishError], None] = lambda _: None
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @classmethod
    async def connect(cls, url: str, *, name: str) -> "Publisher":
        """Connect to the broker; ``name`` is what its management UI shows.

        Raises:
            PublishError: the broker can't be reached or refuses the credentials.
        """
        publisher = cls(url, name)
        channel = await publisher._open()
        publisher._reconnecting = asyncio.create_task(publisher._stay_connected(channel))
        return publisher

    @classmethod
    def connect_later(cls, url: str, *, name: str) -> "Publisher":
        """Return at once, and connect in the background as soon as the broker can be reached."""
        publisher = cls(url, name)
        publisher._reconnecting = asyncio.create_task(publisher._stay_connected(None))
        return publisher

    @property
    def connected(self) -> bool:
        """Whether a publish could succeed now."""
        return self._channel is not None and not self._channel.is_closed

    async def close(self) -> None:
        """Close the connection; unconfirmed messages may or may not have arrived."""
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.wait({self._reconnecting})
        await self._close_connection()

    async def _open(self) -> AbstractChannel:
        try:
            with stray_cancellation_as_error():
                self._connection = await connect(self._url, name=self._name)
                async with asyncio.timeout(OPEN_TIMEOUT):
                    self._channel = await self._connection.amqp.channel(
                        publisher_confirms=True, on_return_raises=True
                    )
        except BrokerUnreachableError as error:
            raise PublishError(f"the broker: {error}") from None
        except Exception as error:  # noqa: BLE001 - aiormq raises even a bare Exception here
            await self._close_connection()
            raise PublishError(f"the broker: {refusal_of(error)}") from None
        return self._channel

    async def _stay_connected(self, channel: AbstractChannel | None) -> None:
        while True:
            channel = channel or await self._reconnect()
            await asyncio.wait(
                {channel.closing, channel.connection.closing}, return_when=asyncio.FIRST_COMPLETED
            )
            log.warning("publisher_lost", name=self._name)
            await self._close_connection()
            channel = None

    async def _close_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _reconnect(self) -> AbstractChannel:
        attempts = 0
        while True:
            attempts += 1
            try:
                channel = await self._open()
            except PublishError as error:
                if attempts == 1:
                    log.warning("publisher_waits", name=self._name, cause=str(error))
                await asyncio.sleep(RECONNECT_INTERVAL)
            else:
                log.info("publisher_connected", name=self._name, attempts=attempts)
                return channel

    def watch_failures(self, callback: Callable[[PublishError], None]) -> None:
        """Call ``callback`` with the error of every failed publish, which is also raised."""
        self._on_failure = callback

    async def publish(self, publication: Publication) -> None:
        """Publish one message and wait for the broker's confirm.

        Raises:
            UnroutableError: the message is not routed to any queue.
            PublishTimeoutError: no confirm within ``PUBLISH_TIMEOUT`` seconds.
            PublishError: refused, or there is no connection.
        """
        try:
            await self._publish_in_time(publication)
        except PublishError as error:
            self._on_failure(error)
            raise

    async def _publish_in_time(self, publication: Publication) -> None:
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT):
                with stray_cancellation_as_error():
                    await self._publish_confirmed(publication)
        except aiormq.exceptions.PublishError:
            raise UnroutableError(
                f"no queue takes {publication.routing_key!r} from {publication.exchange!r}"
            ) from None
        except TimeoutError:
            raise PublishTimeoutError(f"no confirm within {PUBLISH_TIMEOUT} s") from None
        except Exception as error:  # noqa: BLE001 - aiormq raises even a bare Exception here
            raise PublishError(f"not confirmed: {type(error).__name__}") from None

    async def _publish_confirmed(self, publication: Publication) -> None:
        if self._channel is None or self._channel.is_closed:
            raise ConnectionError("no connection")
        message = publication.message
        async with self._lock_for(message.message_id):
            await self._channel.basic_publish(
                message.body,
                exchange=publication.exchange,
                routing_key=publication.routing_key,
                properties=_properties(message),
                mandatory=True,
            )

    def _lock_for(self, message_id: str | None) -> AbstractAsyncContextManager[None]:
        """Return a lock that keeps messages with the same id from being in flight together.

        aiormq matches a returned message by its id: of two with one id it would fail the wrong one.
        """
        if message_id is None:
            return nullcontext()
        return self._locks.setdefault(message_id, asyncio.Lock())

    async def publish_all(self, publications: Sequence[Publication]) -> list[PublishError | None]:
        """Publish concurrently; return, in the same order, the error of each or ``None``."""
        return list(await asyncio.gather(*(self._attempt(each) for each in publications)))

    async def _attempt(self, publication: Publication) -> PublishError | None:
        async with self._in_flight:
            try:
                await self.publish(publication)
            except PublishError as error:
                # The frames of its tracebacks hold two more copies of the body. They would stay
                # while the caller waits to repeat it, and after that until a garbage collection.
                error.__context__ = None
                return error.with_traceback(None)
            return None


def _properties(message: Message) -> Basic.Properties:
    return Basic.Properties(
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers=dict(message.headers) or None,
        delivery_mode=PERSISTENT,
        message_id=message.message_id,
        timestamp=message.timestamp,
        message_type=message.type,
    )
