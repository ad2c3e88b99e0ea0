"""Publishing so that a return means: it is on disk in a queue.

Persistent, mandatory, confirmed, timed out; on a connection of its own, because a broker in alarm
stops reading from a connection that publishes, acks included.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

import aio_pika
import aiormq
import structlog
from aiormq.abc import AbstractChannel

from nexus_messaging.cancellation import only_if_asked_for
from nexus_messaging.connecting import OPEN_TIMEOUT, BrokerUnreachableError, Connection, connect
from nexus_messaging.errors import PublishError, PublishTimeoutError, UnroutableError
from nexus_messaging.message import Message
from nexus_messaging.refusals import refusal_of

PUBLISH_TIMEOUT: Final = 10.0
"""Seconds. Publishes neither confirm nor fail while the broker is in alarm."""

RECONNECT_INTERVAL: Final = 1.0
"""Seconds between attempts to connect."""

IN_FLIGHT: Final = 200

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Publication:
    """A message and where it goes."""

    exchange: str
    routing_key: str
    message: Message


class Publisher:
    """Publishes on one channel, which is made anew whenever it or its connection is lost.

    Not on aio-pika's robust channel: after a connection lost again while it was being restored,
    that one may stay closed for ever on a connection that stands.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = f"{name} publisher"
        self._connection: Connection | None = None
        self._channel: AbstractChannel | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._room = asyncio.Semaphore(IN_FLIGHT)
        self._tell: Callable[[PublishError], None] = lambda _: None
        self._by_id: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @classmethod
    async def connect(cls, url: str, *, name: str) -> "Publisher":
        """Connect to the broker; ``name`` is what its management UI shows.

        Raises:
            PublishError: the broker can't be reached or refuses the credentials.
        """
        publisher = cls(url, name)
        channel = await publisher._open()
        publisher._keeping = asyncio.create_task(publisher._keep_open(channel))
        return publisher

    @property
    def connected(self) -> bool:
        """Whether a publish could succeed now."""
        return self._channel is not None and not self._channel.is_closed

    async def close(self) -> None:
        """Close the connection; what is not confirmed by now has no promise."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        await self._close_connection()

    async def _open(self) -> AbstractChannel:
        try:
            with only_if_asked_for():
                self._connection = await connect(self._url, name=self._name)
                async with asyncio.timeout(OPEN_TIMEOUT):
                    self._channel = await self._connection.amqp.channel(
                        publisher_confirms=True, on_return_raises=True
                    )
        except BrokerUnreachableError as error:
            raise PublishError(f"the broker: {error}") from None
        except Exception as error:  # noqa: BLE001 - aiormq lets even a bare Exception out of here
            await self._close_connection()
            raise PublishError(f"the broker: {refusal_of(error)}") from None
        return self._channel

    async def _keep_open(self, channel: AbstractChannel) -> None:
        while True:
            await asyncio.wait(
                {channel.closing, channel.connection.closing}, return_when=asyncio.FIRST_COMPLETED
            )
            log.warning("publisher_lost", name=self._name)
            await self._close_connection()
            channel = await self._open_again()

    async def _close_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _open_again(self) -> AbstractChannel:
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

    def watch_failures(self, tell: Callable[[PublishError], None]) -> None:
        """Tell of every publish that fails from now on, beside raising it."""
        self._tell = tell

    async def publish(self, publication: Publication) -> None:
        """Publish one message and wait for the broker's confirm.

        Raises:
            UnroutableError: no queue takes it.
            PublishTimeoutError: no confirm within ``PUBLISH_TIMEOUT`` seconds.
            PublishError: refused, or the connection is away.
        """
        try:
            await self._published(publication)
        except PublishError as error:
            self._tell(error)
            raise

    async def _published(self, publication: Publication) -> None:
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT):
                with only_if_asked_for():
                    await self._confirmed(publication)
        except aiormq.exceptions.PublishError:
            raise UnroutableError(
                f"no queue takes {publication.routing_key!r} from {publication.exchange!r}"
            ) from None
        except TimeoutError:
            raise PublishTimeoutError(f"no confirm within {PUBLISH_TIMEOUT} s") from None
        except Exception as error:  # noqa: BLE001 - aiormq lets even a bare Exception out of here
            raise PublishError(f"not confirmed: {type(error).__name__}") from None

    async def _confirmed(self, publication: Publication) -> None:
        if self._channel is None or self._channel.is_closed:
            raise ConnectionError("no connection")
        message = _vendor_message(publication.message)
        async with self._alone(publication.message.message_id):
            await self._channel.basic_publish(
                message.body,
                exchange=publication.exchange,
                routing_key=publication.routing_key,
                properties=message.properties,
                mandatory=True,
            )

    def _alone(self, message_id: str | None) -> AbstractAsyncContextManager[None]:
        """Keep messages of one id from being in flight together.

        aiormq tells a returned message by its id: of two it would blame one and confirm the other.
        """
        if message_id is None:
            return nullcontext()
        return self._by_id.setdefault(message_id, asyncio.Lock())

    async def publish_all(self, publications: Sequence[Publication]) -> list[PublishError | None]:
        """Publish many at once; the answer holds, in the same order, what went wrong with each."""
        return list(await asyncio.gather(*(self._attempt(each) for each in publications)))

    async def _attempt(self, publication: Publication) -> PublishError | None:
        async with self._room:
            try:
                await self.publish(publication)
            except PublishError as error:
                return error
            return None


def _vendor_message(message: Message) -> aio_pika.Message:
    return aio_pika.Message(
        body=message.body,
        headers=dict(message.headers),
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        message_id=message.message_id,
        type=message.type,
        timestamp=message.timestamp,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
