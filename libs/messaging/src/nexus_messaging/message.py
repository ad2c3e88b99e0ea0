"""What travels: a message to be published, and a delivery of one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from nexus_contracts import CONTENT_TYPE, Event, EventData
from nexus_messaging.topology import RETRY_RETURN

HEADER_PREFIX: Final = "nexus-"
"""Ours. `x-` is the broker's namespace, and everything else belongs to the first publisher."""


@dataclass(frozen=True, slots=True)
class Message:
    """A body and the few properties that every copy of it keeps.

    Nothing else is carried over: a publisher's ``expiration`` would make a dead letter vanish, its
    ``user_id`` would get the copy refused, its ``CC`` would return it to two queues, and stale
    broker headers may have it dropped as a cycle.
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

    ``returned``: how often the broker says it delivered the message before without an ack; lost
    connections count for everything prefetched, so it proves no attempt.
    """

    message: Message
    queue: str
    exchange: str
    returned: int = 0
    headers: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def came_back(self) -> bool:
        """Whether it came from a retry tier: only then do our headers on it mean anything.

        An operator's move keeps every header but arrives through the default exchange, and so
        starts anew.
        """
        return self.exchange == RETRY_RETURN

    @property
    def moved(self) -> bool:
        """Whether it was put into the queue itself, as by an operator's move of dead letters."""
        return not self.exchange
