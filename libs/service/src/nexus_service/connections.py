"""A service's connections to the broker, for its readiness and liveness probes."""

from dataclasses import dataclass, field
from typing import Final

from nexus_messaging.consumer import Consumer
from nexus_messaging.publisher import Publisher

UNCONNECTED_LIMIT: Final = 180.0
"""Seconds without a connection after which liveness fails. An attempt takes seconds, so many have
failed by then. A restarted process may succeed, for example because an address has changed."""


@dataclass(slots=True)
class Connections:
    """One connection for publishing, and one for each consumed queue."""

    publisher: Publisher | None = None
    consumers: list[Consumer] = field(default_factory=list)

    async def fault(self) -> str | None:
        """Return the reason why the service is not ready, or ``None``."""
        if self.publisher is None or not self.consumers:
            return "starting"
        faults = [] if self.publisher.connected else ["not connected for publishing"]
        faults += [fault for each in self.consumers if (fault := each.fault())]
        return "; ".join(faults) or None

    async def liveness_fault(self) -> str | None:
        """Return the queues that lack a connection beyond ``UNCONNECTED_LIMIT``, or ``None``."""
        stalled = [
            f"{each.queue}: not connected for {each.disconnected_seconds():.0f} s"
            for each in self.consumers
            if each.disconnected_seconds() > UNCONNECTED_LIMIT
        ]
        return "; ".join(stalled) or None
