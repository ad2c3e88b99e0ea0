"""Publishing so that a return means: it is on disk in a queue.

Persistent, mandatory, confirmed, timed out; on a connection of its own, because a broker in alarm
stops reading from a connection that publishes, acks included.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import aio_pika
import aiormq
from aio_pika.abc import AbstractRobustChannel, AbstractRobustConnection

from nexus_messaging.errors import PublishError, PublishTimeoutError, UnroutableError
from nexus_messaging.message import Message

PUBLISH_TIMEOUT: Final = 10.0
"""Seconds. Publishes neither confirm nor fail while the broker is in alarm."""

IN_FLIGHT: Final = 200


@dataclass(frozen=True, slots=True)
class Publication:
    """A message and where it goes."""

    exchange: str
    routing_key: str
    message: Message


class Publisher:
    """Publishes on one channel that comes back by itself after a lost connection."""

    def __init__(
        self, connection: AbstractRobustConnection, channel: AbstractRobustChannel
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._room = asyncio.Semaphore(IN_FLIGHT)

    @classmethod
    async def connect(cls, url: str, *, name: str) -> "Publisher":
        """Connect to the broker; ``name`` is what its management UI shows.

        Raises:
            PublishError: the broker can't be reached or refuses the credentials.
        """
        try:
            connection = await aio_pika.connect_robust(
                url, client_properties={"connection_name": f"{name} publisher"}, heartbeat=10
            )
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        except (aiormq.exceptions.AMQPError, OSError, TimeoutError) as error:
            raise PublishError(f"the broker is not reachable: {type(error).__name__}") from None
        return cls(connection, channel)

    @property
    def connected(self) -> bool:
        """Whether a publish could succeed now."""
        return self._connection.connected.is_set() and not self._channel.is_closed

    async def close(self) -> None:
        """Close the connection; what is not confirmed by now has no promise."""
        await self._connection.close()

    async def publish(self, publication: Publication) -> None:
        """Publish one message and wait for the broker's confirm.

        Raises:
            UnroutableError: no queue takes it.
            PublishTimeoutError: no confirm within ``PUBLISH_TIMEOUT`` seconds.
            PublishError: refused, or the connection is away.
        """
        try:
            exchange = await self._channel.get_exchange(publication.exchange, ensure=False)
            await exchange.publish(
                _vendor_message(publication.message),
                publication.routing_key,
                mandatory=True,
                timeout=PUBLISH_TIMEOUT,
            )
        except aiormq.exceptions.PublishError:
            raise UnroutableError(
                f"no queue takes {publication.routing_key!r} from {publication.exchange!r}"
            ) from None
        except TimeoutError:
            raise PublishTimeoutError(f"no confirm within {PUBLISH_TIMEOUT} s") from None
        except (aiormq.exceptions.AMQPError, OSError, RuntimeError) as error:
            raise PublishError(f"not confirmed: {type(error).__name__}") from None

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
        message_id=message.message_id,
        type=message.type,
        timestamp=message.timestamp,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
