"""Harm to the broker and by its operator: ended, in alarm, changed, looked into."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aio_pika
from aio_pika.abc import AbstractQueue

from local_stack.catalogue import VHOST
from metering_chaos import operator_moves
from metering_chaos.arena import NORMAL_WATERMARK, Arena, in_thread
from metering_chaos.database_faults import end_all
from metering_chaos.plan import Fault

PEEKS: Final = 5
BETWEEN_ENDS: Final = 0.5
CHANGES: Final = (0.2, 3.0)
"""What an operator multiplies a policy's figure with. The longest tier is over within a drain."""

LEAST_DELIVERIES: Final = 15
"""A limit above the ten returns after which a service itself takes a message out."""

DISPLACING: Final = "somebody-elses"
DISPLACING_PRIORITY: Final = 99
COPIES: Final = "chaos.copies"


async def kill(arena: Arena, _fault: Fault) -> None:
    """Kill it and start it again."""
    await in_thread(arena.stack.broker.kill)
    await in_thread(arena.stack.broker.restart)


async def restart(arena: Arena, _fault: Fault) -> None:
    """Shut it down and start it again."""
    await in_thread(arena.stack.broker.restart)


async def close_connections(arena: Arena, _fault: Fault) -> None:
    """Close all connections of the vhost."""
    await arena.ctl("close_all_connections", "-p", VHOST, "--limit", "0", "chaos")


async def alarm(arena: Arena, fault: Fault) -> None:
    """Let it run out of memory, so that it takes nothing from publishers."""
    try:
        await arena.ctl("set_vm_memory_high_watermark", "0.0001")
        await asyncio.sleep(fault.seconds)
    finally:
        await arena.ctl("set_vm_memory_high_watermark", NORMAL_WATERMARK)


async def apply_topology(arena: Arena, _fault: Fault) -> None:
    """Apply the topology again, as each release does, while everything runs."""
    await in_thread(arena.stack.apply_topology)


async def change_policy(arena: Arena, fault: Fault) -> None:
    """Change a figure of a policy for a while, and put back what was there."""
    name, figure = fault.target.split()
    queue = name.removeprefix("nexus.")
    before = await operator_moves.policy(arena.stack, name)
    definition = before["definition"]
    factor = CHANGES[fault.draw % len(CHANGES)]
    changed = round(definition[figure] * factor)
    if figure == "delivery-limit":
        changed = max(changed, LEAST_DELIVERIES)
    after = {**before, "definition": {**definition, figure: changed}}
    try:
        await operator_moves.set_policy(arena.stack, name, after)
        await asyncio.sleep(fault.seconds)
        in_force = await in_thread(lambda: _in_force(arena, queue, figure))
        arena.seen["changed policies in force"] += in_force == changed
    finally:
        await operator_moves.set_policy(arena.stack, name, before)


async def displace_policy(arena: Arena, fault: Fault) -> None:
    """Let somebody else's policy displace a tier's for a while, as messages go into the tier.

    It says nothing of a wait or of what comes after it. Sessions that end in mid-work make a
    service hand back what it holds.
    """
    foreign = {
        "pattern": f"^{re.escape(fault.target)}$",
        "definition": {"max-length": 1_000_000},
        "priority": DISPLACING_PRIORITY,
        "apply-to": "queues",
    }
    until = asyncio.get_running_loop().time() + fault.seconds
    await operator_moves.set_policy(arena.stack, DISPLACING, foreign)
    try:
        async with _copies(arena, fault.target) as copies:
            while asyncio.get_running_loop().time() < until:
                await end_all(arena, "usage-ingest")
                await asyncio.sleep(BETWEEN_ENDS)
            count = (await copies.declare()).message_count
    finally:
        await operator_moves.remove_policy(arena.stack, DISPLACING)
    arena.seen["messages that met a displaced policy"] += count or 0


@asynccontextmanager
async def _copies(arena: Arena, exchange: str) -> AsyncIterator[AbstractQueue]:
    """Bind a queue of our own that gets a copy of all that comes to ``exchange``."""
    broker = arena.stack.broker
    url = broker.amqp_url(broker.admin.user, broker.admin.password, VHOST)
    async with await aio_pika.connect(url, timeout=10) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(COPIES, exclusive=True)
        await queue.bind(exchange, "#")
        yield queue


def _in_force(arena: Arena, queue: str, figure: str) -> int:
    """Ask the node itself which figure a queue obeys: the management API tells it late."""
    name = f'rabbit_misc:r(<<"{VHOST}">>, queue, <<"{queue}">>)'
    code = f'{{ok, Q}} = rabbit_amqqueue:lookup({name}), rabbit_policy:get(<<"{figure}">>, Q).'
    return int(arena.stack.broker.ctl("eval", code))


async def move(arena: Arena, fault: Fault) -> None:
    """Move a queue's dead letters back to it."""
    await operator_moves.move(arena.stack, f"{fault.target}.dlq", fault.target)


async def move_wrongly(arena: Arena, fault: Fault) -> None:
    """Move a queue's dead letters to a queue of somebody else."""
    source, destination = fault.target.split(">")
    await operator_moves.move(arena.stack, f"{source}.dlq", destination)


async def peek(arena: Arena, fault: Fault) -> None:
    """Look at a queue's dead letters again and again."""
    for _ in range(PEEKS):
        await operator_moves.peek(arena.stack, f"{fault.target}.dlq", 10)
