"""The metering topology on a broker of its own, and what operators and services do there."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aio_pika
import aiohttp
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from yarl import URL

from local_stack.rabbitmq import RabbitNode
from nexus_broker_admin.commands import apply_topology, read_drift
from nexus_broker_admin.drift import Difference
from nexus_broker_admin.management import Management
from nexus_messaging.description import metering_topology

TIER_SCALE = 0.01

DEADLINE = 20.0

PASSWORDS = {user.name: f"{user.name} s3cret" for user in metering_topology().users}


@dataclass(frozen=True)
class Broker:
    """One vhost of the node under test, with the metering topology applied by an administrator."""

    node: RabbitNode
    vhost: str
    management: Management

    @property
    def management_url(self) -> str:
        """The management API's address with the administrator's login."""
        return administration(self.node)

    async def apply(self) -> tuple[list[Difference], tuple[Difference, ...]]:
        """Apply the topology; return the changes and the differences that remain."""
        changes: list[Difference] = []
        left = await apply_topology(
            self.management,
            PASSWORDS,
            vhost=self.vhost,
            tier_scale=TIER_SCALE,
            on_change=changes.append,
        )
        return changes, left

    async def drift(self) -> list[str]:
        """Read the drift as the lines that an operator sees."""
        found = await read_drift(
            self.management, PASSWORDS, vhost=self.vhost, tier_scale=TIER_SCALE
        )
        return [str(difference) for difference in found]

    @asynccontextmanager
    async def channel(self, user: str) -> AsyncIterator[AbstractChannel]:
        """Open a channel as one of the described users, or as the administrator."""
        password = PASSWORDS.get(user, self.node.admin.password)
        url = self.node.amqp_url(user, password, self.vhost)
        async with await aio_pika.connect(url) as connection:
            yield await connection.channel(publisher_confirms=True, on_return_raises=True)

    async def ask(self, user: str, method: str, path: str, **body: Any) -> Any:
        """Call the management API as a user; ``{vhost}`` in the path is filled in."""
        password = PASSWORDS.get(user, self.node.admin.password)
        url = f"{self.node.management_url}/api/{path.format(vhost=self.vhost)}"
        login = {"Authorization": aiohttp.encode_basic_auth(user, password)}
        async with (
            aiohttp.ClientSession(headers=login, raise_for_status=True) as session,
            session.request(method, URL(url, encoded=True), json=body or None) as answer,
        ):
            return await answer.json(content_type=None)


def administration(node: RabbitNode) -> str:
    """Build the management API's address with the administrator's login."""
    url = URL(node.management_url)
    return str(url.with_user(node.admin.user).with_password(node.admin.password))


async def publish(channel: AbstractChannel, exchange: str, key: str, **properties: Any) -> None:
    """Publish one persistent message, mandatory and confirmed."""
    message = aio_pika.Message(b"{}", delivery_mode=aio_pika.DeliveryMode.PERSISTENT, **properties)
    route = await channel.get_exchange(exchange, ensure=False)
    await route.publish(message, key, mandatory=True, timeout=DEADLINE)


async def arrival(channel: AbstractChannel, name: str) -> AbstractIncomingMessage:
    """Wait for the next message of a queue and fetch it without an acknowledgement."""
    queue = await channel.get_queue(name)
    async with queue.iterator(timeout=DEADLINE) as messages:
        return await anext(messages)


async def depth(broker: Broker, name: str) -> int:
    """Count the ready messages of a queue."""
    async with broker.channel("admin") as channel:
        queue = await channel.get_queue(name)
        return queue.declaration_result.message_count or 0


async def run_cli(
    broker: Broker, *arguments: str, management_url: str | None = None
) -> tuple[int, str]:
    """Run ``nexus-topology`` with every setting; return its exit code and all it printed."""
    users = metering_topology().users
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "nexus_broker_admin.cli",
        *arguments,
        env={
            "PYTHONPATH": ":".join(sys.path),
            "MANAGEMENT_URL": management_url or broker.management_url,
            "VHOST": broker.vhost,
            **{user.password_setting: PASSWORDS[user.name] for user in users},
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


def others_policy(priority: int, **settings: object) -> dict[str, object]:
    """Return a policy for all retry tiers, as others may set one."""
    definition = {"max-length": 1000, **settings}
    return {
        "pattern": "^retry",
        "priority": priority,
        "definition": definition,
        "apply-to": "queues",
    }
