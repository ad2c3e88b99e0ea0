"""A message to publish, and a delivery of a message."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from nexus_contracts import CONTENT_TYPE, Event, EventData
from nexus_messaging.properties import Properties, read_properties
from nexus_messaging.topology import RETRY_RETURN

HEADER_PREFIX: Final = "nexus-"
"""The prefix of our headers. `x-` is the broker's; all others are the first publisher's."""


@dataclass(frozen=True, slots=True)
class Message:
    """A body and the properties that every copy of it keeps.

    Other properties are not copied: a publisher's ``expiration`` would delete a dead letter, its
    ``user_id`` would make the broker refuse the copy, its ``CC`` would route the copy to two
    queues, and with old ``x-death`` headers the broker may drop the copy as a cycle.
    """

    body: bytes = field(repr=False)
    message_id: str | None = None
    type: str | None = None
    content_type: str | None = CONTENT_TYPE
    content_encoding: str | None = None
    timestamp: datetime | None = None
    headers: Mapping[str, str | int] = field(default_factory=dict)

    @classmethod
    def of(cls, event: Event[EventData]) -> "Message":
        """Return the message that carries ``event``, as every publisher forms it."""
        return cls(
            body=event.body(),
            message_id=str(event.id),
            type=event.type,
            timestamp=event.time,
        )


class Delivery:
    """One delivery of a message from ``queue``.

    Its properties are decoded when one of them is first asked for: most deliveries are processed
    by their body alone. ``properties`` are decoded ones, or the payload of the content header.
    """

    __slots__ = ("_properties", "body", "exchange", "queue", "redelivered")

    def __init__(
        self,
        queue: str,
        exchange: str,
        body: bytes,
        properties: Properties | bytes,
        *,
        redelivered: bool = False,
    ) -> None:
        self.queue = queue
        self.exchange = exchange
        self.body = body
        self.redelivered = redelivered
        self._properties = properties

    @property
    def message(self) -> Message:
        """The body, and the properties that copies keep; invalid ones are read as absent."""
        properties = self._decoded()
        stamp = properties.timestamp
        return Message(
            body=self.body,
            message_id=properties.message_id,
            type=properties.message_type,
            content_type=properties.content_type,
            content_encoding=properties.content_encoding,
            timestamp=stamp if isinstance(stamp, datetime) else None,
        )

    @property
    def headers(self) -> Mapping[str, object]:
        """All headers, the broker's and the publisher's too."""
        return self._decoded().headers or {}

    @property
    def returned(self) -> int:
        """The quorum queue's own count of the message's earlier deliveries without an ack.

        A lost connection counts for every prefetched message, so the count does not prove an
        attempt to process it. The header is valid only on a redelivery. On a first delivery it is
        another queue's: *Move messages* keeps the count of how often the dead letter was read.
        """
        count = self.headers.get("x-delivery-count") if self.redelivered else None
        return count if isinstance(count, int) else 0

    @property
    def came_back(self) -> bool:
        """Whether it came from a retry tier. Only then are its `nexus-` headers valid.

        A message that an operator moves keeps every header, but arrives through the default
        exchange, so its counters start again.
        """
        return self.exchange == RETRY_RETURN

    @property
    def moved(self) -> bool:
        """Whether it came through the default exchange, as when an operator moves dead letters."""
        return not self.exchange

    def _decoded(self) -> Properties:
        if isinstance(self._properties, bytes):
            self._properties = read_properties(self._properties)
        return self._properties
