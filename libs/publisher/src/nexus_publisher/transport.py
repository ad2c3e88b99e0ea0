"""What sends batches: by HTTP to the events API, or by AMQP to the broker."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from nexus_publisher.answers import BatchAnswer
from nexus_publisher.entries import Entry


class Sender(Protocol):
    """Sends batches on connections that it opens when it needs them, and again when they end."""

    async def send(self, batch: Sequence[Entry]) -> BatchAnswer:
        """Send a batch and wait, for a limited time, for what becomes of each event."""


class Transport(Protocol):
    """How to reach the other side. It holds no connection: those are the sender's."""

    def open(self) -> AbstractAsyncContextManager[Sender]:
        """Return a sender for one event loop; it connects to nobody yet."""
