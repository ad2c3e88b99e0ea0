"""Looking at the broker as one service sees it, for its ``check`` command."""

from collections.abc import Iterable
from typing import Final

import aiormq
from aiormq.abc import AbstractConnection

SECONDS: Final = 10.0


async def broker_fault(url: str, queues: Iterable[str]) -> str | None:
    """Say what keeps a service from consuming ``queues``: all of it, in one text.

    A passive declare tells whether a queue is there; consuming it and cancelling at once would
    tell more and disturb a service that runs.
    """
    try:
        connection = await aiormq.connect(url)
    except (aiormq.exceptions.AMQPError, OSError, TimeoutError) as error:
        return f"not reachable: {type(error).__name__}"
    try:
        faults = [await _queue_fault(connection, queue) for queue in queues]
    finally:
        await connection.close()
    return "; ".join(fault for fault in faults if fault) or None


async def _queue_fault(connection: AbstractConnection, queue: str) -> str | None:
    channel = await connection.channel()
    try:
        await channel.queue_declare(queue, passive=True, timeout=SECONDS)
    except aiormq.exceptions.ChannelNotFoundEntity:
        return f"queue {queue} is missing: run nexus-topology apply"
    except aiormq.exceptions.ChannelAccessRefused:
        return f"queue {queue}: no permission: run nexus-topology apply"
    await channel.close()
    return None
