"""Dead letters and other messages that wait for a person."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import aio_pika


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message in a dead-letter queue or in ``unroutable``.

    Attributes:
        queue: Where it is.
        reason: Its header ``nexus-reason``; ``by the broker`` without one.
        body: Its bytes.
    """

    queue: str
    reason: str
    body: bytes = field(repr=False)


def dead_letter_queues(names: Iterable[str]) -> dict[str, str]:
    """Find the queues that have a dead-letter queue, ``<queue>.dlq``; return it by queue."""
    every = set(names)
    return {name: f"{name}.dlq" for name in sorted(every) if f"{name}.dlq" in every}


async def read_dead_letters(amqp_url: str, queues: Iterable[str]) -> list[DeadLetter]:
    """Read every message of ``queues`` and leave it there, as *Get messages* with requeue does.

    Raises:
        aio_pika.exceptions.AMQPError: If a queue can't be read.
        OSError: If the broker can't be reached.
    """
    found = []
    async with await aio_pika.connect(amqp_url) as connection:
        # Closing the channel hands back what was not acknowledged.
        channel = await connection.channel()
        for queue in queues:
            declared = await channel.get_queue(queue)
            while (message := await declared.get(fail=False)) is not None:
                reason = str(message.headers.get("nexus-reason", "by the broker"))
                found.append(DeadLetter(queue, reason, message.body))
    return found
