"""What a consumer counts: every metric of the messaging library, by name."""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from nexus_messaging.errors import PublishError, PublishTimeoutError, UnroutableError
from nexus_messaging.flood import Flood
from nexus_messaging.reasons import Reason
from nexus_messaging.topology import TIERS

PUBLISH_FAILURES: Final[Mapping[type[PublishError], str]] = MappingProxyType(
    {UnroutableError: "unroutable", PublishTimeoutError: "timeout"}
)
OTHER: Final = "other"


class MessagingMetrics:
    """Counters of one service; each label value is born at 0, so that its first increase shows.

    A message id or anything else unbounded is never a label. What is counted for every message is
    looked up once: finding a label's counter costs as much as increasing it.
    """

    def __init__(self, registry: CollectorRegistry, *, service: str, queues: Iterable[str]) -> None:
        prefix = service.replace("-", "_")
        # Deliveries whose processing ended well.
        done = Counter(
            f"{prefix}_messages_done", "Messages processed", ["queue"], registry=registry
        )
        # When processing last ended well, in Unix time; 0 until it does.
        last = Gauge(
            f"{prefix}_last_done_timestamp_seconds",
            "Time of the last message processed",
            ["queue"],
            registry=registry,
        )
        # Copies published to a retry tier, whatever the cause.
        retried = Counter(
            f"{prefix}_messages_retried",
            "Copies sent to a tier",
            ["queue", "tier"],
            registry=registry,
        )
        # Copies published to a dead-letter queue by this service (the broker's own are not here).
        dead = Counter(
            f"{prefix}_messages_dead_lettered",
            "Messages dead-lettered",
            ["queue", "reason"],
            registry=registry,
        )
        # Publishes that the broker did not confirm; each is tried again. `unroutable`: a queue is
        # missing. `timeout`: the broker is in alarm or stuck. `other`: it is away.
        failed = Counter(
            f"{prefix}_publishes_failed", "Publishes not confirmed", ["cause"], registry=registry
        )
        self._failed = {
            cause: failed.labels(cause) for cause in (*PUBLISH_FAILURES.values(), OTHER)
        }
        # 1 while consuming is paused because what processing needs is away.
        self._paused = Gauge(
            f"{prefix}_consumption_paused", "Consuming is paused", ["queue"], registry=registry
        )
        # 1 while consuming is stopped because too much of it was dead-lettered.
        self._stopped = Gauge(
            f"{prefix}_consumption_stopped", "Consuming is stopped", ["queue"], registry=registry
        )
        # Sources whose dead letters are held back; all that are not known count as one.
        self._sources_held = Gauge(
            f"{prefix}_sources_held_back", "Sources held back", ["queue"], registry=registry
        )
        # Messages sent to the longest tier instead of the dead-letter queue, each time anew.
        held = Counter(
            f"{prefix}_messages_held_back", "Messages held back", ["queue"], registry=registry
        )
        names = tuple(queues)
        self._held = {queue: held.labels(queue) for queue in names}
        self._done = {queue: done.labels(queue) for queue in names}
        self._retried = {
            (q, tier.name): retried.labels(q, tier.name) for q in names for tier in TIERS
        }
        self._dead = {(q, reason): dead.labels(q, reason.value) for q in names for reason in Reason}
        self._last = dict.fromkeys(names, 0.0)
        for queue in names:
            last.labels(queue).set_function(partial(self._last.__getitem__, queue))
            self._paused.labels(queue)
            self._stopped.labels(queue)
            self._sources_held.labels(queue)

    def count_processed(self, queue: str, number: int = 1) -> None:
        """Count messages that were processed."""
        self._done[queue].inc(number)
        self._last[queue] = time.time()

    def count_retry(self, queue: str, tier: str) -> None:
        """Count a copy that waits in ``tier``."""
        self._retried[queue, tier].inc()

    def count_dead_letter(self, queue: str, reason: Reason) -> None:
        """Count a dead letter."""
        self._dead[queue, reason].inc()

    def count_publish_failure(self, error: PublishError) -> None:
        """Count a publish that failed."""
        self._failed[PUBLISH_FAILURES.get(type(error), OTHER)].inc()

    def watch_pauses(self, queue: str, paused: Callable[[], bool]) -> None:
        """Ask whether consuming ``queue`` is paused whenever metrics are collected."""
        self._paused.labels(queue).set_function(lambda: float(paused()))

    def show_flood(self, queue: str, flood: Flood | None) -> None:
        """Show whether a flood of dead letters has stopped the consuming of ``queue``."""
        self._stopped.labels(queue).set(flood is not None)

    def show_held_sources(self, queue: str, sources: int) -> None:
        """Show how many sources of ``queue`` are held back."""
        self._sources_held.labels(queue).set(sources)

    def count_held_back(self, queue: str) -> None:
        """Count a message that waits because its source is held back."""
        self._held[queue].inc()
