"""What a consumer counts: every metric of the messaging library, by name."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter

from nexus_messaging.reasons import Reason
from nexus_messaging.topology import TIERS


class MessagingMetrics:
    """Counters of one service; each label value is born at 0, so that its first increase shows.

    A message id or anything else unbounded is never a label.
    """

    def __init__(self, registry: CollectorRegistry, *, service: str, queues: Iterable[str]) -> None:
        prefix = service.replace("-", "_")
        # Deliveries whose processing ended well.
        self._done = Counter(
            f"{prefix}_messages_done", "Messages processed", ["queue"], registry=registry
        )
        # Copies published to a retry tier, whatever the cause.
        self._retried = Counter(
            f"{prefix}_messages_retried",
            "Copies sent to a tier",
            ["queue", "tier"],
            registry=registry,
        )
        # Copies published to a dead-letter queue by this service (the broker's own are not here).
        self._dead = Counter(
            f"{prefix}_messages_dead_lettered",
            "Messages dead-lettered",
            ["queue", "reason"],
            registry=registry,
        )
        for queue in queues:
            self._done.labels(queue)
            for tier in TIERS:
                self._retried.labels(queue, tier.name)
            for reason in Reason:
                self._dead.labels(queue, reason.value)

    def settled(self, queue: str) -> None:
        """Count a message that was processed."""
        self._done.labels(queue).inc()

    def retried(self, queue: str, tier: str) -> None:
        """Count a copy that waits in ``tier``."""
        self._retried.labels(queue, tier).inc()

    def dead_lettered(self, queue: str, reason: Reason) -> None:
        """Count a dead letter."""
        self._dead.labels(queue, reason.value).inc()
