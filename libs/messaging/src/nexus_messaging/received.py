"""Converts a message of aiormq into values of this library."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from aiormq.abc import AbstractChannel, DeliveredMessage

from nexus_messaging.message import Delivery, Message


@dataclass(frozen=True, slots=True)
class Received:
    """A delivery, its delivery tag, and the channel on which the tag is valid."""

    delivery: Delivery
    channel: AbstractChannel
    tag: int


def delivery_of(queue: str, message: DeliveredMessage) -> Delivery:
    """Return the delivery from ``queue``; invalid properties are read as absent."""
    properties = message.header.properties
    headers: Mapping[str, object] = properties.headers or {}
    stamp = properties.timestamp
    return Delivery(
        message=Message(
            body=bytes(message.body),
            message_id=properties.message_id,
            type=properties.message_type,
            content_type=properties.content_type,
            content_encoding=properties.content_encoding,
            timestamp=stamp if isinstance(stamp, datetime) else None,
        ),
        queue=queue,
        exchange=message.exchange or "",
        returned=times_returned(headers, redelivered=bool(message.redelivered)),
        headers=headers,
    )


def times_returned(headers: Mapping[str, object], *, redelivered: bool) -> int:
    """Return the quorum queue's own count of a message's earlier deliveries without an ack.

    The header is valid only on a redelivery. On a first delivery it is another queue's: *Move
    messages* keeps the count of how often the dead letter was read.
    """
    count = headers.get("x-delivery-count", 0) if redelivered else 0
    return count if isinstance(count, int) else 0
