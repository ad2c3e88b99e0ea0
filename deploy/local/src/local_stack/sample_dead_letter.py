"""A dead letter to practise on: a tool run that usage-ingest refuses now and accepts later."""

import asyncio
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

import aio_pika

from local_stack.catalogue import OPERATOR
from local_stack.publishing import publish, tool_executed, user_created
from local_stack.stack import Stack

QUEUE = "usage-ingest.tool-executed"
DEAD_LETTER_QUEUE = f"{QUEUE}.dlq"

# usage-ingest dead-letters a run whose clock is further ahead than this.
_TOLERATED = timedelta(minutes=5)
# Long enough for usage-ingest to read it first, short enough for a person to wait.
_REFUSED_FOR = timedelta(seconds=30)
_ARRIVAL_SECONDS = 20.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class SampleDeadLetter:
    """A run that was published with a clock too far ahead.

    Attributes:
        accepted_from: From when it is recorded and billed if it is moved back to its queue.
        arrived: Whether it is in the dead-letter queue.
    """

    accepted_from: datetime
    arrived: bool

    @classmethod
    def publish(cls, stack: Stack) -> Self:
        """Publish it as an outside service does, and wait until usage-ingest has dead-lettered it.

        Raises:
            NotPublishedError: If the broker did not confirm it.
        """
        now, user = datetime.now(UTC), uuid.uuid4()
        accepted_from = now + _REFUSED_FOR
        early = tool_executed(user, accepted_from + _TOLERATED)
        publish(stack.amqp_url("publisher"), [user_created(user, now), early])
        return cls(accepted_from, arrived=asyncio.run(_arrives(stack.amqp_url(OPERATOR))))


async def _arrives(amqp_url: str) -> bool:
    deadline = time.monotonic() + _ARRIVAL_SECONDS
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        while time.monotonic() < deadline:
            queue = await channel.declare_queue(DEAD_LETTER_QUEUE, passive=True)
            if queue.declaration_result.message_count:
                return True
            await asyncio.sleep(_POLL_SECONDS)
    return False
