"""A message as aiormq delivers it, read into this library's own values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from aiormq.abc import AbstractChannel, DeliveredMessage

from nexus_messaging.message import Delivery, Message


@dataclass(frozen=True, slots=True)
class Received:
    """A delivery and the channel whose tag acks it: a tag means nothing on another channel."""

    delivery: Delivery
    channel: AbstractChannel
    tag: int


def delivery_of(queue: str, message: DeliveredMessage) -> Delivery:
    """Return what was delivered from ``queue``; odd properties are read as absent."""
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

    It counts only on a redelivery. Before one, the header is another queue's: *Move messages*
    takes along how often the dead letter was looked at.
    """
    count = headers.get("x-delivery-count", 0) if redelivered else 0
    return count if isinstance(count, int) else 0
