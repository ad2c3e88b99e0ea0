"""A service's connections to the broker, as its readiness and its liveness see them."""

from dataclasses import dataclass, field
from typing import Final

from nexus_messaging.consumer import Consumer
from nexus_messaging.publisher import Publisher

UNCONNECTED_FOR: Final = 180.0
"""Seconds without a connection that is wanted, after which a restart is worth trying: every attempt
is limited to seconds, so by then the process may know no way back, such as to a new address."""


@dataclass(slots=True)
class Connections:
    """One connection for publishing, and one for each queue that is consumed."""

    publisher: Publisher | None = None
    consumers: list[Consumer] = field(default_factory=list)

    async def fault(self) -> str | None:
        """Say what is wrong, for readiness."""
        if self.publisher is None or not self.consumers:
            return "starting"
        faults = [] if self.publisher.connected else ["not connected for publishing"]
        faults += [fault for each in self.consumers if (fault := each.fault())]
        return "; ".join(faults) or None

    async def stalled(self) -> str | None:
        """Say which queue's connection has been missing for too long, for liveness."""
        stalled = [
            f"{each.queue}: not connected for {each.unconnected():.0f} s"
            for each in self.consumers
            if each.unconnected() > UNCONNECTED_FOR
        ]
        return "; ".join(stalled) or None
