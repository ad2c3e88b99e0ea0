"""Publishes what a relay has read, and returns what the broker has confirmed of it."""

from collections.abc import Sequence
from typing import TypeVar

from nexus_messaging.outage_log import Begin, End, OutageLog
from nexus_messaging.outgoing import OutgoingEvent, send_all
from nexus_messaging.publisher import Publisher

T = TypeVar("T")


class BatchSender:
    """Publishes batches; ``begin`` and ``end`` log an outage, see ``OutageLog``."""

    def __init__(self, publisher: Publisher, begin: Begin, end: End) -> None:
        self._publisher = publisher
        self._outage = OutageLog(begin, end)

    async def send(self, sendings: Sequence[tuple[T, OutgoingEvent]]) -> tuple[list[T], list[T]]:
        """Publish an event for each thing; return the confirmed things, and the others."""
        errors = await send_all(self._publisher, [event for _, event in sendings])
        self._outage.round(errors)
        answered = list(zip((thing for thing, _ in sendings), errors, strict=True))
        confirmed = [thing for thing, error in answered if error is None]
        return confirmed, [thing for thing, error in answered if error is not None]
