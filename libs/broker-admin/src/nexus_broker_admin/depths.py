"""How many messages and consumers queues have, as far as a login may see. Nothing is changed.

RabbitMQ lets every user of a vhost declare its queues passively
(https://www.rabbitmq.com/docs/access-control#authorisation), and answers with the numbers of ready
messages and of consumers. Only the management API knows unacknowledged messages, and which
services are connected.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote

import aiormq
from aiormq.abc import AbstractConnection
from yarl import URL

from nexus_messaging import connecting
from nexus_messaging.addresses import hosts_of, url_of
from nexus_messaging.connecting import BrokerUnreachableError
from nexus_messaging.refusals import refusal_of

READ_TIMEOUT: Final = 10.0
"""Seconds for all queues, once there is a connection."""


@dataclass(frozen=True, slots=True)
class Depth:
    """The number of messages and consumers of a queue at one moment.

    ``ready`` messages wait for a consumer. ``messages`` also counts unacknowledged ones; it is
    ``None`` if the management API was not read.
    """

    ready: int
    consumers: int
    messages: int | None = None

    @property
    def waiting(self) -> int:
        """The number of messages, as far as it is known."""
        return max(self.ready, self.messages or 0)


@dataclass(frozen=True, slots=True)
class Depths:
    """The depth of each queue that exists.

    ``connected`` names the users that have connections. It is ``None`` if the management API was
    not read; ``management_fault`` then says why.
    """

    queues: Mapping[str, Depth] = field(default_factory=lambda: MappingProxyType({}))
    connected: frozenset[str] | None = None
    management_fault: str | None = None


async def read_depths(
    url: str, queues: Iterable[str], management_url: str | None, vhost: str
) -> Depths:
    """Read the depths of ``queues`` over AMQP, and over the management API if it has an address.

    Raises:
        BrokerUnreachableError: No connection could be opened, or it was lost meanwhile.
    """
    found = await _read_over_amqp(url, queues)
    if management_url is None:
        return Depths(found, management_fault="MANAGEMENT_URL is not set")
    from nexus_broker_admin.management import ManagementError, connect

    try:
        async with connect(management_url) as management:
            messages = await management.messages(vhost)
            connected = await management.connected_users(vhost)
    except ManagementError as error:
        return Depths(found, management_fault=str(error))
    whole = {
        queue: Depth(depth.ready, depth.consumers, messages.get(queue))
        for queue, depth in found.items()
    }
    return Depths(whole, connected)


async def _read_over_amqp(url: str, queues: Iterable[str]) -> dict[str, Depth]:
    connection = await connecting.connect(url, name="status")
    try:
        async with asyncio.timeout(READ_TIMEOUT):
            found = {queue: await _read_depth(connection.amqp, queue) for queue in queues}
    except (aiormq.exceptions.AMQPError, OSError, TimeoutError) as error:
        raise BrokerUnreachableError(refusal_of(error)) from None
    finally:
        await connection.close()
    return {queue: depth for queue, depth in found.items() if depth is not None}


async def _read_depth(connection: AbstractConnection, queue: str) -> Depth | None:
    """Return the depth of one queue, on a channel of its own: a missing queue closes it."""
    channel = await connection.channel(publisher_confirms=False)
    try:
        answer = await channel.queue_declare(queue, passive=True)
    except aiormq.exceptions.ChannelNotFoundEntity:
        return None
    await channel.close()
    return Depth(answer.message_count or 0, answer.consumer_count or 0)


def vhost_of(amqp_url: str) -> str:
    """Return the vhost that an AMQP URL names."""
    first = url_of(amqp_url, hosts_of(amqp_url)[0])
    return unquote(URL(first).raw_path[1:]) or "/"
