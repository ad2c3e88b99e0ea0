"""A vhost with the metering topology, as its publisher, operator and administrator use it."""

import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import aio_pika
import aiohttp
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from yarl import URL

from local_stack.servers import Broker
from nexus_broker_admin.definitions import HASHING, SALT_BYTES, definitions, hash_password
from nexus_contracts import CONTENT_TYPE, Event, EventData
from nexus_messaging.description import metering_topology
from nexus_messaging.topology import EVENTS, TIERS, UNROUTABLE, WORK_QUEUES, dead_letter_queue
from support.leak_check import personal_data

TIER_SCALE: Final = 0.01
"""Retry tiers wait a hundredth of their time."""


@dataclass(frozen=True)
class Vhost:
    """One vhost of the broker under test; every described user has ``password``."""

    broker: Broker
    name: str
    password: str
    personal: set[str] = field(default_factory=set, kw_only=True)
    """The addresses and names in published events, which no output may hold."""

    @property
    def admin_url(self) -> str:
        """Return the administrator's AMQP URL to this vhost."""
        admin = self.broker.admin
        return self.broker.amqp_url(admin.user, admin.password, self.name)

    def url(self, user: str) -> str:
        """Return ``user``'s AMQP URL to this vhost."""
        return self.broker.amqp_url(user, self.password, self.name)

    async def create(self, *, tier_scale: float) -> None:
        """Create the vhost with the whole topology, tiers shortened by ``tier_scale``.

        All of it in one call, which takes a third of the time that `nexus-topology apply` does.
        """
        wanted = definitions(metering_topology(self.name, tier_scale, self.broker.version))
        for user in wanted["users"]:
            user["password_hash"] = hash_password(self.password, os.urandom(SALT_BYTES))
            user["hashing_algorithm"] = HASHING
        await self.ask("POST", "definitions", wanted)

    async def delete(self) -> None:
        """Delete the vhost and all that is in it."""
        await self.ask("DELETE", f"vhosts/{quote(self.name)}")

    async def empty(self) -> None:
        """Purge every queue, the retry tiers first: their messages would return to the others."""
        tiers = [tier.name for tier in TIERS]
        dead = [dead_letter_queue(queue) for queue in WORK_QUEUES]
        async with self.channel() as channel:
            for name in (*tiers, *WORK_QUEUES, *dead, UNROUTABLE):
                queue = await channel.get_queue(name, ensure=False)
                await queue.purge()

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Call the management API as the administrator; the path may contain ``{vhost}``."""
        admin = self.broker.admin
        login = {"Authorization": aiohttp.encode_basic_auth(admin.user, admin.password)}
        url = f"{self.broker.management_url}/api/{path.format(vhost=quote(self.name, safe=''))}"
        async with (
            aiohttp.ClientSession(headers=login, raise_for_status=True) as session,
            session.request(method, URL(url, encoded=True), json=body) as answer,
        ):
            return await answer.json(content_type=None)

    @asynccontextmanager
    async def channel(self, user: str | None = None) -> AsyncIterator[AbstractChannel]:
        """Open a channel as ``user``, or as the administrator."""
        url = self.url(user) if user else self.admin_url
        async with await aio_pika.connect(url) as connection:
            yield await connection.channel(publisher_confirms=True, on_return_raises=True)

    async def publish(self, *events: Event[EventData], exchange: str = EVENTS) -> None:
        """Publish events as an outside service does, or as the administrator elsewhere."""
        self.personal.update(personal_data(*events))
        async with self.channel("publisher" if exchange == EVENTS else None) as channel:
            target = await channel.get_exchange(exchange, ensure=False)
            for event in events:
                await target.publish(message(event), event.type)

    async def publish_raw(
        self, body: bytes, key: str, *, exchange: str = EVENTS, **properties: Any
    ) -> None:
        """Publish any bytes with any properties, as the administrator."""
        async with self.channel() as channel:
            target = await channel.get_exchange(exchange, ensure=False)
            await target.publish(aio_pika.Message(body, **properties), key)

    async def depth(self, queue: str) -> int:
        """Count the ready messages of ``queue``."""
        async with self.channel() as channel:
            declared = await channel.get_queue(queue)
            return declared.declaration_result.message_count or 0

    async def peek(self, queue: str) -> list[AbstractIncomingMessage]:
        """Get what is ready in ``queue`` and requeue it.

        Each get counts as a delivery: after some twenty, a work queue's delivery limit
        dead-letters the messages. Wait by ``depth`` there; dead-letter queues have no limit.
        """
        found = []
        async with self.channel() as channel:
            declared = await channel.get_queue(queue)
            while (got := await declared.get(fail=False)) is not None:
                found.append(got)
        return found

    async def take(self, queue: str) -> AbstractIncomingMessage:
        """Wait up to 20 s for the next message of ``queue`` and consume it.

        The only way to read a queue with a single active consumer, which refuses a get.
        """
        async with self.channel() as channel:
            declared = await channel.get_queue(queue)
            async with declared.iterator(timeout=20) as messages:
                message = await anext(messages)
                await message.ack()
                return message

    async def dead_letters(self, queue: str) -> list[AbstractIncomingMessage]:
        """Get the dead letters of ``queue`` and requeue them."""
        return await self.peek(dead_letter_queue(queue))

    async def move(self, source: str, destination: str) -> None:
        """Move all messages as the management UI's *Move messages* does: by a dynamic shovel."""
        name = f"Move from {source}"
        uri = f"amqp:///{quote(self.name, safe='')}"
        value = {
            "src-uri": uri,
            "src-queue": source,
            "src-protocol": "amqp091",
            "src-prefetch-count": 1000,
            "src-delete-after": "queue-length",
            "dest-protocol": "amqp091",
            "dest-uri": uri,
            "dest-queue": destination,
            "dest-add-forward-headers": False,
            "ack-mode": "on-confirm",
        }
        path = "parameters/shovel/{vhost}/" + quote(name, safe="")
        await self.ask("PUT", path, {"component": "shovel", "name": name, "value": value})

    @property
    def management_url(self) -> str:
        """Return the management API's URL with its administrator's login."""
        admin = self.broker.admin
        url = URL(self.broker.management_url)
        return str(url.with_user(admin.user).with_password(admin.password))


@asynccontextmanager
async def open_vhost(
    broker: Broker, password: str, *, tier_scale: float = TIER_SCALE
) -> AsyncIterator[Vhost]:
    """Make a vhost with the topology, and delete it at the end."""
    vhost = Vhost(broker, f"metering-{secrets.token_hex(4)}", password)
    await vhost.create(tier_scale=tier_scale)
    try:
        yield vhost
    finally:
        await vhost.delete()


def bad_message(source: str | None, event_type: str) -> aio_pika.Message:
    """Return an invalid message of ``source``, or an unreadable one of no source."""
    envelope = f'{{"specversion":"1.0","type":"{event_type}","source":"{source}"}}'
    body = b"{" if source is None else envelope.encode()
    return aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)


def message(event: Event[EventData]) -> aio_pika.Message:
    """Return ``event`` as a correct outside service publishes it."""
    return aio_pika.Message(
        event.body(),
        content_type=CONTENT_TYPE,
        message_id=str(event.id),
        type=event.type,
        timestamp=event.time,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
