"""Looking at the broker as one service sees it, for its ``check`` command: nothing is disturbed."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Final
from urllib.parse import unquote

import aiormq
from aiormq.abc import AbstractChannel
from pamqp.common import FieldValue
from pydantic import SecretStr
from yarl import URL

from nexus_broker_admin.drift import Standing
from nexus_broker_admin.management import ManagementError, connect, read_drift
from nexus_messaging import connecting
from nexus_messaging.addresses import hosts_of, url_of
from nexus_messaging.connecting import BrokerUnreachableError
from nexus_messaging.refusals import refusal_of
from nexus_messaging.settings import BrokerSettings
from nexus_messaging.topology import DEAD, INTERNAL, MAX_MESSAGE_BYTES, TIERS, Rights, rights_of
from nexus_service.checking import Check, Checks

SECONDS: Final = 10.0
AT_ONCE: Final = 4
"""Connections of one check."""

NOT_COMPARED: Final = (
    "limits, policies and permissions were not compared with the description:"
    " set MANAGEMENT_URL for that, or run nexus-topology check"
)

_UNUSABLE: Final[dict[str, FieldValue]] = {"x-priority": "none"}
"""Consuming with these arguments is refused, after the broker has looked at the permission."""

Refusal = aiormq.exceptions.ChannelClosed
Attempt = Callable[[AbstractChannel], Awaitable[object]]
Trial = Callable[[Attempt], Awaitable[Refusal | None]]


class TopologySettings(BrokerSettings):
    """What commands alone may be given; the running service does not need it."""

    management_url: SecretStr | None = None
    """`http://user:password@host:port` of the broker's management API, an administrator's: compares
    the whole broker with its description. Empty: only what the service's own user can try. To
    `status` it adds what is in consumers' hands; a user with the tag `monitoring` will do."""


def broker_checks(service: str) -> tuple[Checks[BrokerSettings], Checks[TopologySettings]]:
    """Return the checks of everything at the broker that ``service`` needs."""
    return (
        Checks("broker", BrokerSettings, lambda settings: {"broker": _broker(settings, service)}),
        Checks(
            "topology",
            TopologySettings,
            lambda settings: {"topology": _topology(settings)},
            remark=lambda settings: None if settings.management_url else NOT_COMPARED,
        ),
    )


def _broker(settings: BrokerSettings, service: str) -> Check:
    return lambda: broker_fault(settings.amqp_url.get_secret_value(), rights_of(service))


async def broker_fault(
    url: str, rights: Rights, *, message_bytes: int = MAX_MESSAGE_BYTES
) -> str | None:
    """Say what keeps a service from working: what is missing, not permitted, or not limited.

    Args:
        url: The service's own AMQP URL.
        rights: What it needs.
        message_bytes: The size at which the broker should limit messages.
    """
    room = asyncio.Semaphore(AT_ONCE)

    async def tried(attempt: Attempt) -> Refusal | None:
        async with room, asyncio.timeout(SECONDS):
            return await _refusal(url, attempt)

    try:
        faults = await asyncio.gather(
            *(_queue_fault(tried, queue) for queue in rights.queues),
            *(_write_fault(tried, exchange, key) for exchange, key in _written(rights)),
            _size_fault(tried, *next(_written(rights)), message_bytes),
        )
    except BrokerUnreachableError as error:
        return str(error)
    except (aiormq.exceptions.AMQPError, OSError, TimeoutError) as error:
        return refusal_of(error)
    return "\n".join(dict.fromkeys(fault for fault in faults if fault)) or None


def _written(rights: Rights) -> Iterator[tuple[str, str]]:
    """Yield the exchanges and routing keys that a service publishes to."""
    yield from ((INTERNAL, f"{event}.v1") for event in rights.publishes)
    for exchange in (*(tier.name for tier in TIERS), DEAD):
        yield from ((exchange, queue) for queue in rights.queues)


async def _queue_fault(tried: Trial, queue: str) -> str | None:
    """Say whether ``queue`` is missing or may not be consumed, without consuming it.

    To consume and cancel at once would take messages, and take its turn of a single active
    consumer.
    """

    async def declare(channel: AbstractChannel) -> None:
        await channel.queue_declare(queue, passive=True)

    async def consume(channel: AbstractChannel) -> None:
        await channel.basic_consume(queue, _ignore, arguments=_UNUSABLE)

    if await tried(declare) is not None:
        return f"queue {queue} is missing: run nexus-topology apply"
    if isinstance(await tried(consume), aiormq.exceptions.ChannelAccessRefused):
        return f"queue {queue}: no permission to read it: run nexus-topology apply"
    return None


async def _write_fault(tried: Trial, exchange: str, key: str) -> str | None:
    """Say whether ``key`` may not be published to ``exchange``, without publishing it.

    In a transaction the broker looks at the permission when it takes the message, and delivers
    it at the commit only, which never comes.
    """

    async def publish(channel: AbstractChannel) -> None:
        await channel.tx_select()
        await channel.basic_publish(b"", exchange=exchange, routing_key=key)
        await channel.tx_rollback()

    match await tried(publish):
        case aiormq.exceptions.ChannelNotFoundEntity():
            return f"exchange {exchange} is missing: run nexus-topology apply"
        case aiormq.exceptions.ChannelAccessRefused():
            return f"exchange {exchange}: no permission to publish {key}: run nexus-topology apply"
        case _:
            return None


async def _size_fault(tried: Trial, exchange: str, key: str, wanted: int) -> str | None:
    """Say whether the broker's limit of a message's size is another than ``wanted`` bytes.

    The broker names its limit only to who exceeds it, so one byte too many is published in a
    transaction that is never committed.
    """

    async def publish(channel: AbstractChannel) -> None:
        await channel.tx_select()
        await channel.basic_publish(bytes(wanted + 1), exchange=exchange, routing_key=key)
        await channel.tx_rollback()

    refusal = await tried(publish)
    advice = f"set max_message_size = {wanted} in its rabbitmq.conf"
    if refusal is None:
        return f"the broker takes messages of more than {wanted} bytes: {advice}"
    limit = re.search(r"configured max size (\d+)", str(refusal))
    if limit is None or int(limit[1]) == wanted:
        return None
    return f"the broker takes messages of {limit[1]} bytes at most: {advice}"


async def _refusal(url: str, attempt: Attempt) -> Refusal | None:
    """Make an attempt on a connection of its own; return the refusal that closed its channel.

    What the attempt itself raises may be no more than that the channel was closed meanwhile, and
    what it sends on a channel just closed ends the whole connection.
    """
    connection = await connecting.connect(url, name="check")
    try:
        channel = await connection.amqp.channel(publisher_confirms=False)
        closing = channel.closing
        try:
            await attempt(channel)
        except (aiormq.exceptions.AMQPError, aiormq.exceptions.ChannelInvalidStateError):
            await asyncio.wait({closing})
            refusal = closing.exception()
            if not isinstance(refusal, Refusal):
                raise ConnectionError("lost while it was asked") from None
            return refusal
    finally:
        await connection.close()
    return None


async def _ignore(_message: object) -> None:
    """Take no delivery: none ever comes."""


def _topology(settings: TopologySettings) -> Check:
    return lambda: topology_fault(
        settings.management_url.get_secret_value() if settings.management_url else "",
        vhost=vhost_of(settings.amqp_url.get_secret_value()),
    )


async def topology_fault(management_url: str, *, vhost: str) -> str | None:
    """Say how the broker differs from its description, passwords and what is not ours left out."""
    try:
        async with connect(management_url) as management:
            drift = await read_drift(management, {}, vhost=vhost)
    except ManagementError as error:
        return str(error)
    ours = [str(each) for each in drift if each.standing is not Standing.FOREIGN]
    return "\n".join(ours) or None


def vhost_of(amqp_url: str) -> str:
    """Return the vhost that an AMQP URL names."""
    first = url_of(amqp_url, hosts_of(amqp_url)[0])
    return unquote(URL(first).raw_path[1:]) or "/"
