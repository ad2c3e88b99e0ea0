"""Properties as bytes on the wire: what a client library would not let a publisher send."""

import struct
from dataclasses import dataclass

import aiormq

from nexus_messaging.topology import EVENTS
from support.vhost import Vhost

# https://www.rabbitmq.com/resources/specs/amqp0-9-1.extended.xml, class basic: the properties in
# their order on the wire, the first one's presence being the highest bit of the flags.
_ORDER = (
    "content_type",
    "content_encoding",
    "headers",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
)


@dataclass(frozen=True)
class RawProperties:
    """Properties given as bytes by name; stands in for the client library's own."""

    fields: dict[str, bytes]
    message_id: str = "unused: only the client's confirm bookkeeping reads it"

    def marshal(self) -> bytes:
        """Return the flags and the fields that are there."""
        flags = sum(1 << (15 - place) for place, name in enumerate(_ORDER) if name in self.fields)
        return struct.pack(">H", flags) + b"".join(
            self.fields[name] for name in _ORDER if name in self.fields
        )


def short(text: bytes) -> bytes:
    """Encode a short string."""
    return struct.pack(">B", len(text)) + text


def table(*entries: tuple[bytes, bytes]) -> bytes:
    """Encode a table of names and values, each value with its type's letter before it."""
    inside = b"".join(short(name) + value for name, value in entries)
    return struct.pack(">I", len(inside)) + inside


def nested(levels: int) -> bytes:
    """Encode tables within tables."""
    inside = table()
    for _ in range(levels):
        inside = table((b"x", b"F" + inside))
    return inside


async def publish_with(vhost: Vhost, body: bytes, key: str, fields: dict[str, bytes]) -> None:
    """Publish ``body`` to `events` with raw properties, confirmed."""
    async with vhost.channel() as channel:
        underlay = await channel.get_underlay_channel()
        answer = await underlay.basic_publish(
            body,
            exchange=EVENTS,
            routing_key=key,
            properties=RawProperties(fields),  # type: ignore[arg-type] # stands in by shape
            mandatory=True,
        )
    assert isinstance(answer, aiormq.spec.Basic.Ack)
