"""A message to publish, and the AMQP frames that carry it."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import pamqp.frame
from pamqp import encode
from pamqp.commands import Basic

from nexus_messaging.frames import BODY, HEADER, frame
from nexus_messaging.message import Message

PERSISTENT: Final = 2
"""The delivery mode of a message that survives a restart of the broker."""

_HEADER_HEAD: Final = struct.Struct(">HxxQH")  # class, bytes of the body, which properties follow
_FLAGS: Final = Basic.Properties.flags


@dataclass(frozen=True, slots=True)
class Publication:
    """A message, the exchange and the routing key.

    Unless it is ``mandatory``, the broker confirms it also if it is routed to no queue.
    """

    exchange: str
    routing_key: str
    message: Message
    mandatory: bool = True

    @property
    def mark(self) -> int:
        """A hash by which the broker's return of this publication is recognized."""
        message = self.message
        return mark_of(self.exchange, self.routing_key, message.message_id, message.body)

    def frames(self, channel: int, most: int) -> Iterator[bytes]:
        """Yield what publishes it, persistent, with at most ``most`` bytes a frame.

        pamqp writes the same bytes, and takes ten times as long for the properties.

        Raises:
            Exception: a value does not fit into its field, or the properties into a frame. Unlike
                a body they can't be split, and for a larger frame the broker closes the connection.
        """
        body, header = self.message.body, _header(self.message)
        if len(header) > most:
            raise ValueError("properties larger than a frame")
        yield _method_frame(self.exchange, self.routing_key, channel, self.mandatory)
        yield from frame(HEADER, channel, header)
        for begin in range(0, len(body), most):
            yield from frame(BODY, channel, body[begin : begin + most])


def mark_of(exchange: str, routing_key: str, message_id: str | None, body: bytes) -> int:
    """Return a hash that two messages share only if it does not matter which of them is lost.

    They would be copies of one message for the same queue.
    """
    return hash((exchange, routing_key, message_id or None, body))


@lru_cache(maxsize=256)
def _method_frame(exchange: str, routing_key: str, channel: int, mandatory: bool) -> bytes:  # noqa: FBT001 - of a cache, which has keywords apart
    method = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    return pamqp.frame.marshal(method, channel)


def _header(message: Message) -> bytes:
    """Encode the properties in the order of their flags, without those that are empty."""
    flags = _FLAGS["delivery_mode"]
    parts = [b""]
    if message.content_type:
        flags |= _FLAGS["content_type"]
        parts.append(_short_string(message.content_type))
    if message.content_encoding:
        flags |= _FLAGS["content_encoding"]
        parts.append(_short_string(message.content_encoding))
    if message.headers:
        flags |= _FLAGS["headers"]
        parts.append(encode.field_table(dict(message.headers)))
    parts.append(PERSISTENT.to_bytes())
    if message.message_id:
        flags |= _FLAGS["message_id"]
        parts.append(_short_string(message.message_id))
    if message.timestamp is not None:
        flags |= _FLAGS["timestamp"]
        parts.append(encode.timestamp(message.timestamp))
    if message.type:
        flags |= _FLAGS["message_type"]
        parts.append(_short_string(message.type))
    parts[0] = _HEADER_HEAD.pack(Basic.frame_id, len(message.body), flags)
    return b"".join(parts)


def _short_string(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes() + encoded
