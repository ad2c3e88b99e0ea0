"""How much waits in queues and who takes it, as far as a login may see; nothing is disturbed.

RabbitMQ lets whoever may enter a vhost declare its queues passively
(https://www.rabbitmq.com/docs/access-control#authorisation). It then answers how many messages
are ready and how many consumers there are. Messages in consumers' hands, and which services are
connected, are known to the management API alone.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import aiormq
from aiormq.abc import AbstractConnection

from nexus_broker_admin.management import ManagementError, connect
from nexus_messaging import connecting
from nexus_messaging.connecting import BrokerUnreachableError
from nexus_messaging.refusals import refusal_of

LOOK_TIMEOUT: Final = 10.0
"""Seconds for all queues, once there is a connection."""


@dataclass(frozen=True, slots=True)
class Depth:
    """What waits in a queue at one moment.

    ``ready`` messages wait for a consumer; ``messages`` are with those in consumers' hands, or
    nothing if the management API was not asked.
    """

    ready: int
    consumers: int
    messages: int | None = None

    @property
    def waiting(self) -> int:
        """All messages of the queue that are known of."""
        return max(self.ready, self.messages or 0)


@dataclass(frozen=True, slots=True)
class Depths:
    """What waits at the broker: by queue, without those that are missing.

    ``connected`` are the users that have connections, or nothing if the management API was not
    asked; ``unasked`` says then why.
    """

    queues: Mapping[str, Depth] = field(default_factory=lambda: MappingProxyType({}))
    connected: frozenset[str] | None = None
    unasked: str | None = None


async def look(url: str, queues: Iterable[str], management_url: str | None, vhost: str) -> Depths:
    """Look at ``queues`` over AMQP, and over the management API if there is an address of it.

    Raises:
        BrokerUnreachableError: no connection came about, or it was lost meanwhile.
    """
    found = await _over_amqp(url, queues)
    if management_url is None:
        return Depths(found, unasked="MANAGEMENT_URL is not set")
    try:
        async with connect(management_url) as management:
            messages = await management.messages(vhost)
            connected = await management.connected_users(vhost)
    except ManagementError as error:
        return Depths(found, unasked=str(error))
    whole = {
        queue: Depth(depth.ready, depth.consumers, messages.get(queue))
        for queue, depth in found.items()
    }
    return Depths(whole, connected)


async def _over_amqp(url: str, queues: Iterable[str]) -> dict[str, Depth]:
    connection = await connecting.connect(url, name="status")
    try:
        async with asyncio.timeout(LOOK_TIMEOUT):
            found = {queue: await _declared(connection.amqp, queue) for queue in queues}
    except (aiormq.exceptions.AMQPError, OSError, TimeoutError) as error:
        raise BrokerUnreachableError(refusal_of(error)) from None
    finally:
        await connection.close()
    return {queue: depth for queue, depth in found.items() if depth is not None}


async def _declared(connection: AbstractConnection, queue: str) -> Depth | None:
    """Return what waits in a queue; each has a channel, as a missing one closes its channel."""
    channel = await connection.channel(publisher_confirms=False)
    try:
        answer = await channel.queue_declare(queue, passive=True)
    except aiormq.exceptions.ChannelNotFoundEntity:
        return None
    await channel.close()
    return Depth(answer.message_count or 0, answer.consumer_count or 0)
