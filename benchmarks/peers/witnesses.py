"""Processes that see when a run is done: by committing it, or by acking its message alone.

Each prints ``<event id> <unix time>`` for each run when SIGTERM ends it.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, Final, cast

import aio_pika
import asyncpg
from aio_pika.abc import AbstractIncomingMessage

QUEUE: Final = "acked-alone"
CHANNEL: Final = "recorded"
PREFETCH: Final = 2000

Seen = dict[str, float]
Close = Callable[[], Awaitable[None]]
Witness = Callable[[Seen], Coroutine[Any, Any, Close]]


async def acked(seen: Seen) -> Close:
    """Consume with aio-pika, as its documentation shows: a callback that acks."""
    connection = await aio_pika.connect(os.environ["AMQP_URL"])
    channel = await connection.channel()
    await channel.set_qos(PREFETCH)

    async def ack(message: AbstractIncomingMessage) -> None:
        await message.ack()
        seen[str(message.message_id)] = time.time()

    queue = await channel.get_queue(QUEUE, ensure=False)
    await queue.consume(ack)
    return connection.close


async def committed(seen: Seen) -> Close:
    """Listen for what a trigger notifies of, which PostgreSQL sends after the commit."""
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])

    def notified(*arguments: object) -> None:
        now = time.time()
        seen.update(dict.fromkeys(str(arguments[-1]).split(","), now))

    await connection.add_listener(CHANNEL, notified)
    return cast("Close", connection.close)


WITNESSES: Final[Mapping[str, Witness]] = MappingProxyType({"acked": acked, "committed": committed})


async def _main(witness: Witness) -> None:
    seen: Seen = {}
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    close = await witness(seen)
    print("ready", flush=True)
    await ended.wait()
    await close()
    for event_id, moment in seen.items():
        print(event_id, moment)


if __name__ == "__main__":
    asyncio.run(_main(WITNESSES[sys.argv[1]]))
