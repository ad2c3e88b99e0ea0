"""A message to publish, and a delivery of a message."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from nexus_contracts import CONTENT_TYPE, Event, EventData
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


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of a message from ``queue``.

    ``returned``: the broker's count of earlier deliveries without an ack. A lost connection counts
    for every prefetched message, so the count does not prove an attempt to process it.
    """

    message: Message
    queue: str
    exchange: str
    returned: int = 0
    headers: Mapping[str, object] = field(default_factory=dict, repr=False)

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
