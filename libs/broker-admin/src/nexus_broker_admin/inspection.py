"""The broker's part of a service's ``check`` command: what the service may do, without doing it."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import aiormq
from aiormq.abc import AbstractChannel
from pamqp.common import FieldValue
from pydantic import SecretStr

from nexus_broker_admin.depths import vhost_of
from nexus_broker_admin.drift import Standing
from nexus_messaging import connecting
from nexus_messaging.connecting import BrokerUnreachableError
from nexus_messaging.refusals import refusal_of
from nexus_messaging.settings import BrokerSettings
from nexus_messaging.topology import (
    DEAD,
    INTERNAL,
    MAX_MESSAGE_BYTES,
    NOTICES,
    TIERS,
    Rights,
    rights_of,
)
from nexus_service.checking import Check, Checks

TIMEOUT: Final = 10.0
"""Seconds for one attempt."""

MAX_CONNECTIONS: Final = 4
"""Connections of one check at the same time."""

NOT_COMPARED: Final = (
    "limits, policies and permissions were not compared with the description:"
    " set MANAGEMENT_URL for that, or run nexus-topology check"
)

_INVALID_ARGUMENTS: Final[dict[str, FieldValue]] = {"x-priority": "none"}
"""The broker refuses to consume with these, but only after it has checked the permission."""

Refusal = aiormq.exceptions.ChannelClosed
Operation = Callable[[AbstractChannel], Awaitable[object]]
Attempt = Callable[[Operation], Awaitable[Refusal | None]]
"""Runs an operation on a new connection; returns the refusal that closed its channel, if any."""


class TopologySettings(BrokerSettings):
    """Settings of commands; the running service does not need them."""

    management_url: SecretStr | None = None
    """`http://user:password@host:port` of the broker's management API, an administrator's: `check`
    compares the whole broker with its description. Empty: it tries only what the service's own user
    may do. `status` adds unacknowledged messages; a user with the tag `monitoring` is enough."""


def broker_checks(service: str) -> tuple[Checks[BrokerSettings], Checks[TopologySettings]]:
    """Return the checks of all that ``service`` needs at the broker."""
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
        message_bytes: The message size that the broker should limit, in bytes.
    """
    slots = asyncio.Semaphore(MAX_CONNECTIONS)

    async def attempt(operation: Operation) -> Refusal | None:
        async with slots, asyncio.timeout(TIMEOUT):
            return await _refusal(url, operation)

    try:
        faults = await asyncio.gather(
            *(_queue_fault(attempt, queue) for queue in rights.queues),
            *(_write_fault(attempt, exchange, key) for exchange, key in _publishes(rights)),
            _size_fault(attempt, *next(_publishes(rights)), message_bytes),
        )
    except BrokerUnreachableError as error:
        return str(error)
    except (aiormq.exceptions.AMQPError, OSError, TimeoutError) as error:
        return refusal_of(error)
    return "\n".join(dict.fromkeys(fault for fault in faults if fault)) or None


def _publishes(rights: Rights) -> Iterator[tuple[str, str]]:
    """Yield the exchanges and routing keys that a service publishes to."""
    yield from ((INTERNAL, f"{event}.v1") for event in rights.publishes)
    yield from ((NOTICES, f"{event}.v1") for event in rights.notifies)
    for exchange in (*(tier.name for tier in TIERS), DEAD):
        yield from ((exchange, queue) for queue in rights.queues)


async def _queue_fault(attempt: Attempt, queue: str) -> str | None:
    """Say whether ``queue`` is missing or may not be consumed, without consuming it.

    To consume and cancel at once would fetch messages, and could become the single active consumer.
    """

    async def declare(channel: AbstractChannel) -> None:
        await channel.queue_declare(queue, passive=True)

    async def consume(channel: AbstractChannel) -> None:
        await channel.basic_consume(queue, _ignore, arguments=_INVALID_ARGUMENTS)

    if await attempt(declare) is not None:
        return f"queue {queue} is missing: run nexus-topology apply"
    if isinstance(await attempt(consume), aiormq.exceptions.ChannelAccessRefused):
        return f"queue {queue}: no permission to read it: run nexus-topology apply"
    return None


async def _write_fault(attempt: Attempt, exchange: str, key: str) -> str | None:
    """Say whether ``key`` may not be published to ``exchange``, without publishing it.

    In a transaction the broker checks the permission when it takes the message, and routes the
    message at the commit, which never comes.
    """

    async def publish(channel: AbstractChannel) -> None:
        await channel.tx_select()
        await channel.basic_publish(b"", exchange=exchange, routing_key=key)
        await channel.tx_rollback()

    match await attempt(publish):
        case aiormq.exceptions.ChannelNotFoundEntity():
            return f"exchange {exchange} is missing: run nexus-topology apply"
        case aiormq.exceptions.ChannelAccessRefused():
            return f"exchange {exchange}: no permission to publish {key}: run nexus-topology apply"
        case _:
            return None


async def _size_fault(attempt: Attempt, exchange: str, key: str, wanted: int) -> str | None:
    """Say whether the broker's limit of a message's size differs from ``wanted`` bytes.

    The broker states its limit only to a publisher that exceeds it, so one byte too many is
    published in a transaction that is never committed.
    """

    async def publish(channel: AbstractChannel) -> None:
        await channel.tx_select()
        await channel.basic_publish(bytes(wanted + 1), exchange=exchange, routing_key=key)
        await channel.tx_rollback()

    refusal = await attempt(publish)
    advice = f"set max_message_size = {wanted} in its rabbitmq.conf"
    if refusal is None:
        return f"the broker takes messages of more than {wanted} bytes: {advice}"
    limit = re.search(r"configured max size (\d+)", str(refusal))
    if limit is None or int(limit[1]) == wanted:
        return None
    return f"the broker takes messages of {limit[1]} bytes at most: {advice}"


async def _refusal(url: str, operation: Operation) -> Refusal | None:
    """Run an operation on a connection of its own; return the refusal that closed its channel.

    The operation itself may raise only that the channel was closed meanwhile; the cause is in the
    channel. What it sends on a channel just closed ends the whole connection.
    """
    connection = await connecting.connect(url, name="check")
    try:
        channel = await connection.amqp.channel(publisher_confirms=False)
        closing = channel.closing
        try:
            await operation(channel)
        except (aiormq.exceptions.AMQPError, aiormq.exceptions.ChannelInvalidStateError):
            await asyncio.wait({closing})
            refusal = closing.exception()
            if not isinstance(refusal, Refusal):
                raise ConnectionError("the connection was lost during the check") from None
            return refusal
    finally:
        await connection.close()
    return None


async def _ignore(_message: object) -> None:
    """Handle no delivery: none ever comes."""


def _topology(settings: TopologySettings) -> Check:
    return lambda: topology_fault(
        settings.management_url.get_secret_value() if settings.management_url else "",
        vhost=vhost_of(settings.amqp_url.get_secret_value()),
    )


async def topology_fault(management_url: str, *, vhost: str) -> str | None:
    """Say how the broker differs from its description; passwords and foreign objects aside."""
    from nexus_broker_admin.commands import read_drift
    from nexus_broker_admin.management import ManagementError, connect

    try:
        async with connect(management_url) as management:
            drift = await read_drift(management, {}, vhost=vhost)
    except ManagementError as error:
        return str(error)
    faults = [
        str(each) for each in drift if each.standing is not Standing.FOREIGN and not each.acceptable
    ]
    return "\n".join(faults) or None
