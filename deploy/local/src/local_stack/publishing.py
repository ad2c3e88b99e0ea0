"""Publishing as an outside service does: CloudEvents in JSON, persistent, mandatory, confirmed."""

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import aio_pika

from local_stack.errors import LocalStackError

EXCHANGE: Final = "events"
CONTENT_TYPE: Final = "application/cloudevents+json"

_CONFIRM_SECONDS = 10.0
_CONCURRENT_PUBLISHES = 100


class NotPublishedError(LocalStackError):
    """The broker did not confirm a message; its publisher has to publish it again."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it goes over the wire.

    Attributes:
        id: The same on every retry of one fact.
        type: The event's name and major version, which is also its routing key.
        body: The CloudEvents envelope as JSON.
    """

    id: str
    type: str
    body: bytes = field(repr=False)

    @classmethod
    def of(
        cls, id_: uuid.UUID, type_: str, source: str, time: datetime, data: Mapping[str, Any]
    ) -> "Event":
        """Write the envelope of an event."""
        envelope = {
            "specversion": "1.0",
            "id": str(id_),
            "source": source,
            "type": type_,
            "time": time.isoformat(),
            "datacontenttype": "application/json",
            "data": data,
        }
        return cls(str(id_), type_, json.dumps(envelope).encode())


def user_created(user: uuid.UUID, time: datetime, name: str = "Example") -> Event:
    """Make the event of a user's creation."""
    data = {"user_id": str(user), "email": f"user-{user.hex[:8]}@example.com", "name": name}
    return Event.of(uuid.uuid4(), "user.created.v1", "example/accounts", time, data)


def tool_executed(
    user: uuid.UUID,
    time: datetime,
    tool: tuple[str, str] = ("weather", "forecast"),
    **model: str | int,
) -> Event:
    """Make the event of a run of ``tool``, a server's, at ``time``.

    With a ``model`` and its tokens by kind, which version 2 adds, it is of version 2.
    """
    data = {
        "user_id": str(user),
        "server_id": tool[0],
        "tool_name": tool[1],
        "origin": "direct",
        "status": "succeeded",
        **model,
    }
    type_ = "tool.executed.v2" if model else "tool.executed.v1"
    return Event.of(uuid.uuid4(), type_, "example/mcp-route", time, data)


def publish(amqp_url: str, events: Sequence[Event]) -> None:
    """Publish ``events`` and return when the broker has confirmed each.

    Raises:
        NotPublishedError: If the broker cannot be reached, refuses, or does not answer in time.
    """
    asyncio.run(publish_all(amqp_url, events))


async def publish_all(amqp_url: str, events: Sequence[Event]) -> None:
    """Publish ``events`` in order, some at once, and return when the broker has confirmed each.

    Raises:
        NotPublishedError: If the broker cannot be reached, refuses, or does not answer in time.
    """
    try:
        async with await aio_pika.connect(amqp_url, timeout=_CONFIRM_SECONDS) as connection:
            # Without on_return_raises a message that no queue takes would count as published.
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            exchange = await channel.get_exchange(EXCHANGE, ensure=False)
            for start in range(0, len(events), _CONCURRENT_PUBLISHES):
                part = events[start : start + _CONCURRENT_PUBLISHES]
                await asyncio.gather(
                    *(
                        exchange.publish(_message(event), event.type, timeout=_CONFIRM_SECONDS)
                        for event in part
                    )
                )
    except (aio_pika.exceptions.AMQPError, OSError, TimeoutError) as error:
        raise NotPublishedError(f"not published: {type(error).__name__}") from error


def _message(event: Event) -> aio_pika.Message:
    return aio_pika.Message(
        event.body,
        content_type=CONTENT_TYPE,
        message_id=event.id,
        type=event.type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
