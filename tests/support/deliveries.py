"""Deliveries as values, for tests that need no broker."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from nexus_messaging.message import Delivery, Message
from nexus_messaging.properties import Properties

NO_HEADERS: Final[Mapping[str, Any]] = MappingProxyType({})


def delivery(
    message: Message,
    queue: str,
    exchange: str = "events",
    *,
    headers: Mapping[str, Any] = NO_HEADERS,
    redelivered: bool = False,
) -> Delivery:
    """Return a first delivery of ``message``, or a later one."""
    return Delivery(
        queue,
        exchange,
        message.body,
        properties_of(message, headers),
        redelivered=redelivered,
    )


def properties_of(message: Message, headers: Mapping[str, Any]) -> Properties:
    """Return the properties with which the broker delivers ``message``."""
    return Properties(
        content_type=message.content_type or "",
        content_encoding=message.content_encoding or "",
        headers=dict(headers),
        message_id=message.message_id,
        timestamp=message.timestamp,
        message_type=message.type or "",
    )
