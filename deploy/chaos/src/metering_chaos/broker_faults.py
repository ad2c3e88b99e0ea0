"""Faults of the broker and of its operator: killed, in alarm, policies changed, messages moved."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aio_pika
from aio_pika.abc import AbstractQueue

from local_stack.catalogue import VHOST
from metering_chaos import management
from metering_chaos.database_faults import end_all_sessions
from metering_chaos.environment import NORMAL_WATERMARK, Environment, in_thread
from metering_chaos.plan import INGEST, Fault

PEEKS: Final = 5
END_SESSIONS_EVERY_SECONDS: Final = 0.5
FACTORS: Final = (0.2, 3.0)
"""What an operator multiplies a policy's figure by; the longest wait still ends while settling."""

MIN_DELIVERY_LIMIT: Final = 15
"""A limit above the ten returns after which a service itself dead-letters a message."""

FOREIGN_POLICY: Final = "foreign"
FOREIGN_PRIORITY: Final = 99
COPIES_QUEUE: Final = "chaos.copies"


async def kill(environment: Environment, _fault: Fault) -> None:
    """Kill it and start it again."""
    await in_thread(environment.stack.broker.kill)
    await in_thread(environment.stack.broker.restart)


async def restart(environment: Environment, _fault: Fault) -> None:
    """Shut it down and start it again."""
    await in_thread(environment.stack.broker.restart)


async def close_connections(environment: Environment, _fault: Fault) -> None:
    """Close all connections of the vhost."""
    await environment.ctl("close_all_connections", "-p", VHOST, "--limit", "0", "chaos")


async def raise_memory_alarm(environment: Environment, fault: Fault) -> None:
    """Lower the memory limit for a while, so that the broker blocks publishers."""
    try:
        await environment.ctl("set_vm_memory_high_watermark", "0.0001")
        await asyncio.sleep(fault.seconds)
    finally:
        await environment.ctl("set_vm_memory_high_watermark", NORMAL_WATERMARK)


async def apply_topology(environment: Environment, _fault: Fault) -> None:
    """Apply the topology again, as each release does, while everything runs."""
    await in_thread(environment.stack.apply_topology)


async def change_policy(environment: Environment, fault: Fault) -> None:
    """Change a figure of a policy for a while, then restore it."""
    name, figure = fault.target.split()
    path = management.policy_path(name)
    policy = await management.ask(environment.stack, path)
    before = {key: policy[key] for key in ("pattern", "definition", "priority", "apply-to")}
    definition = before["definition"]
    changed = round(definition[figure] * FACTORS[fault.draw % len(FACTORS)])
    if figure == "delivery-limit":
        changed = max(changed, MIN_DELIVERY_LIMIT)
    after = {**before, "definition": {**definition, figure: changed}}
    try:
        await management.ask(environment.stack, path, method="PUT", body=after)
        await asyncio.sleep(fault.seconds)
        in_force = await in_thread(lambda: _in_force(environment, name, figure))
        environment.observed["changed policies in force"] += in_force == changed
    finally:
        await management.ask(environment.stack, path, method="PUT", body=before)


async def displace_policy(environment: Environment, fault: Fault) -> None:
    """Let a foreign policy displace a tier's for a while, as messages are published to the tier.

    It sets neither a wait nor a dead-letter exchange. Ending a service's sessions makes it hand
    back the messages it has.
    """
    foreign = {
        "pattern": f"^{re.escape(fault.target)}$",
        "definition": {"max-length": 1_000_000},
        "priority": FOREIGN_PRIORITY,
        "apply-to": "queues",
    }
    until = asyncio.get_running_loop().time() + fault.seconds
    path = management.policy_path(FOREIGN_POLICY)
    await management.ask(environment.stack, path, method="PUT", body=foreign)
    try:
        async with _copies(environment, fault.target) as copies:
            while asyncio.get_running_loop().time() < until:
                await end_all_sessions(environment, INGEST)
                await asyncio.sleep(END_SESSIONS_EVERY_SECONDS)
            count = (await copies.declare()).message_count
    finally:
        await management.ask(environment.stack, path, method="DELETE")
    environment.observed["messages sent to a tier without its policy"] += count or 0


@asynccontextmanager
async def _copies(environment: Environment, exchange: str) -> AsyncIterator[AbstractQueue]:
    """Bind a queue of our own that receives a copy of each message to ``exchange``."""
    broker = environment.stack.broker
    url = broker.amqp_url(broker.admin.user, broker.admin.password, VHOST)
    async with await aio_pika.connect(url, timeout=10) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(COPIES_QUEUE, exclusive=True)
        await queue.bind(exchange, "#")
        yield queue


def _in_force(environment: Environment, policy: str, figure: str) -> int:
    """Ask the node itself which figure a queue obeys: the management API is late."""
    queue = management.queue_of(policy)
    name = f'rabbit_misc:r(<<"{VHOST}">>, queue, <<"{queue}">>)'
    code = f'{{ok, Q}} = rabbit_amqqueue:lookup({name}), rabbit_policy:get(<<"{figure}">>, Q).'
    return int(environment.stack.broker.ctl("eval", code))


async def move(environment: Environment, fault: Fault) -> None:
    """Move a queue's dead letters back to it."""
    await management.move(environment.stack, f"{fault.target}.dlq", fault.target)


async def move_wrongly(environment: Environment, fault: Fault) -> None:
    """Move a queue's dead letters to another queue."""
    source, destination = fault.target.split(">")
    await management.move(environment.stack, f"{source}.dlq", destination)


async def peek(environment: Environment, fault: Fault) -> None:
    """Read a queue's dead letters several times, with requeue."""
    for _ in range(PEEKS):
        await management.peek(environment.stack, f"{fault.target}.dlq", 10)
