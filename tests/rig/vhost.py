"""A vhost with the metering topology, seen by publisher, operator and administrator."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aio_pika
import aiohttp
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from yarl import URL

from local_stack.servers import Broker
from nexus_broker_admin.definitions import HASHING, SALT_BYTES, definitions, hash_password
from nexus_contracts import CONTENT_TYPE, Event, EventData
from nexus_messaging.topology import (
    EVENTS,
    TIERS,
    UNROUTABLE,
    WORK_QUEUES,
    dead_letter_queue,
    metering_topology,
)
from rig.secrecy import personal


@dataclass(frozen=True)
class Vhost:
    """One vhost of the broker under test; every described user has ``password``."""

    broker: Broker
    name: str
    password: str
    personal: set[str] = field(default_factory=set, kw_only=True)
    """The addresses and names in what was published, which nothing else may tell."""

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
        """Purge every queue, the retry tiers first: what waits there would return to the others."""
        tiers = [tier.name for tier in TIERS]
        dead = [dead_letter_queue(queue) for queue in WORK_QUEUES]
        async with self.channel() as channel:
            for name in (*tiers, *WORK_QUEUES, *dead, UNROUTABLE):
                queue = await channel.get_queue(name, ensure=False)
                await queue.purge()

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Call the management API as its administrator; ``{vhost}`` in the path is filled in."""
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
        self.personal.update(personal(*events))
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
        """Count what is ready in ``queue``."""
        async with self.channel() as channel:
            declared = await channel.get_queue(queue)
            return declared.declaration_result.message_count or 0

    async def peek(self, queue: str) -> list[AbstractIncomingMessage]:
        """Look at what is ready in ``queue``; everything goes back.

        Each look counts as a delivery: some twenty of them and a work queue's limit dead-letters
        what was looked at. Wait by ``depth`` there; dead-letter queues have no limit.
        """
        found = []
        async with self.channel() as channel:
            declared = await channel.get_queue(queue)
            while (got := await declared.get(fail=False)) is not None:
                found.append(got)
        return found

    async def take(self, queue: str) -> AbstractIncomingMessage:
        """Wait for the next message of ``queue`` and take it, as its consumer would.

        The one way to look into a queue with a single active consumer, which refuses a get.
        """
        async with self.channel() as channel:
            declared = await channel.get_queue(queue)
            async with declared.iterator(timeout=20) as messages:
                message = await anext(messages)
                await message.ack()
                return message

    async def dead_letters(self, queue: str) -> list[AbstractIncomingMessage]:
        """Look at the dead letters of ``queue``."""
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


def bad_message(source: str | None, event_type: str) -> aio_pika.Message:
    """Return a message of ``source`` that breaks the contract, or one that nobody can read."""
    envelope = f'{{"specversion":"1.0","type":"{event_type}","source":"{source}"}}'
    body = b"{" if source is None else envelope.encode()
    return aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)


def message(event: Event[EventData]) -> aio_pika.Message:
    """Return ``event`` as a well-behaved outside service publishes it."""
    return aio_pika.Message(
        event.body(),
        content_type=CONTENT_TYPE,
        message_id=str(event.id),
        type=event.type,
        timestamp=event.time,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
