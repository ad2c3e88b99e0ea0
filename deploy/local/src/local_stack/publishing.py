"""Publishing as an outside service does: CloudEvents in JSON, persistent, mandatory, confirmed."""

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import aio_pika

from local_stack.errors import LocalStackError

_EXCHANGE = "events"
_CONTENT_TYPE = "application/cloudevents+json"
_CONFIRM_SECONDS = 10.0


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
    body: bytes


def user_created(user: uuid.UUID, time: datetime) -> Event:
    """Make the event of a user's creation."""
    data = {"user_id": str(user), "email": f"user-{user.hex[:8]}@example.com", "name": "Example"}
    return _event("user.created.v1", "example/accounts", time, data)


def tool_executed(user: uuid.UUID, time: datetime) -> Event:
    """Make the event of a tool's run at ``time``."""
    data = {
        "user_id": str(user),
        "server_id": "weather",
        "tool_name": "forecast",
        "origin": "direct",
        "status": "succeeded",
    }
    return _event("tool.executed.v1", "example/mcp-route", time, data)


def publish(amqp_url: str, events: Sequence[Event]) -> None:
    """Publish ``events`` and return when the broker has confirmed each.

    Raises:
        NotPublishedError: If it cannot be reached, refuses, or does not answer in time.
    """
    try:
        asyncio.run(_publish(amqp_url, events))
    except (aio_pika.exceptions.AMQPError, OSError, TimeoutError) as error:
        raise NotPublishedError(f"not published: {type(error).__name__}") from error


async def _publish(amqp_url: str, events: Sequence[Event]) -> None:
    async with await aio_pika.connect(amqp_url, timeout=_CONFIRM_SECONDS) as connection:
        # Without on_return_raises a message no queue takes would count as published.
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await channel.get_exchange(_EXCHANGE, ensure=False)
        for event in events:
            message = aio_pika.Message(
                event.body,
                content_type=_CONTENT_TYPE,
                message_id=event.id,
                type=event.type,
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            await exchange.publish(message, event.type, timeout=_CONFIRM_SECONDS)


def _event(kind: str, source: str, time: datetime, data: Mapping[str, Any]) -> Event:
    event_id = str(uuid.uuid4())
    envelope = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": kind,
        "time": time.isoformat(),
        "datacontenttype": "application/json",
        "data": data,
    }
    return Event(event_id, kind, json.dumps(envelope).encode())
