"""Publishes persistent, mandatory messages and waits for the confirm, with a timeout.

When ``publish`` returns, the message is on disk in a queue. The publisher has a connection of its
own: a broker in alarm stops reading from connections that publish, and would not read acks either.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import structlog

from nexus_messaging.cancellation import stray_cancellation_as_error
from nexus_messaging.connecting import OPEN_TIMEOUT, BrokerUnreachableError, Connection, connect
from nexus_messaging.errors import PublishError, PublishTimeoutError
from nexus_messaging.publication import Publication
from nexus_messaging.publishing_channel import PublishingChannel
from nexus_messaging.refusals import refusal_of

__all__ = ["Publication", "Publisher"]

PUBLISH_TIMEOUT: Final = 10.0
"""Seconds for a confirm: a broker in alarm neither confirms nor refuses."""

RECONNECT_INTERVAL: Final = 1.0
"""Seconds between attempts to connect."""

MAX_AT_ONCE: Final = 500
"""Messages in one write, and unconfirmed by one ``publish_all``."""

MAX_WRITE_BYTES: Final = 1024 * 1024
"""Bytes of bodies in one write, unless one message is larger: a write is a copy of them."""

log = structlog.get_logger()


class Publisher:
    """Publishes on one channel, which is reopened whenever it or its connection is lost.

    It does not use aio-pika's robust channel: if a connection is lost again while it is restored,
    that channel may stay closed although the connection is open.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = f"{name} publisher"
        self._connection: Connection | None = None
        self._channel: PublishingChannel | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._on_failure: Callable[[PublishError], None] = lambda _: None

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

    async def _open(self) -> PublishingChannel:
        try:
            with stray_cancellation_as_error():
                self._connection = await connect(self._url, name=self._name)
                async with asyncio.timeout(OPEN_TIMEOUT):
                    self._channel = await PublishingChannel.opened_on(self._connection.amqp)
        except BrokerUnreachableError as error:
            raise PublishError(f"the broker: {error}") from None
        except Exception as error:  # noqa: BLE001 - aiormq raises even a bare Exception here
            await self._close_connection()
            raise PublishError(f"the broker: {refusal_of(error)}") from None
        return self._channel

    async def _stay_connected(self, channel: PublishingChannel | None) -> None:
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

    async def _reconnect(self) -> PublishingChannel:
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
        [error] = await self.publish_all([publication])
        if error is not None:
            raise error

    async def publish_all(self, publications: Sequence[Publication]) -> list[PublishError | None]:
        """Publish in order, in as few writes as their sizes allow, and wait for the confirms.

        Returns the error of each, in the same order, or ``None``: then the message is in a queue.
        After a timeout no more is sent, and the rest has the same error.
        """
        errors: list[PublishError | None] = []
        for batch in batches(publications):
            if errors and isinstance(errors[-1], PublishTimeoutError):
                errors += [_timeout() for _ in batch]
            else:
                errors += await self._publish_batch(batch)
        for error in errors:
            if error is not None:
                self._on_failure(error)
        return errors

    async def _publish_batch(
        self, publications: Sequence[Publication]
    ) -> list[PublishError | None]:
        channel = self._channel
        if channel is None or channel.is_closed:
            return [PublishError("no connection") for _ in publications]

        answers = channel.answers(len(publications))
        failure: Callable[[], PublishError] = _timeout
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT):
                with stray_cancellation_as_error():
                    await channel.publish(publications, answers)
        except TimeoutError:
            pass
        except Exception as error:  # noqa: BLE001 - aiormq raises even a bare Exception here
            failure = partial(PublishError, f"not confirmed: {type(error).__name__}")
        for place in answers.missing:
            answers.errors[place] = failure()
        return answers.errors


def batches(publications: Sequence[Publication]) -> Iterator[Sequence[Publication]]:
    """Split into parts of ``MAX_AT_ONCE`` and ``MAX_WRITE_BYTES``, or of one larger message."""
    begin = size = 0
    for end, publication in enumerate(publications):
        its_size = len(publication.message.body)
        if end > begin and (end - begin == MAX_AT_ONCE or size + its_size > MAX_WRITE_BYTES):
            yield publications[begin:end]
            begin, size = end, 0
        size += its_size
    if begin < len(publications):
        yield publications[begin:]


def _timeout() -> PublishTimeoutError:
    return PublishTimeoutError(f"no confirm within {PUBLISH_TIMEOUT} s")
