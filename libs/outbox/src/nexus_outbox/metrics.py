"""Every metric of nexus-outbox."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from nexus_messaging.errors import PublishError
from nexus_messaging.metrics import OTHER, PUBLISH_FAILURES
from nexus_outbox.storage import Status

PREFIX: Final = "nexus_outbox"
STATES: Final = ("waiting", "refused", "invalid")


class Metrics:
    """Each label value starts at 0, so that its first increase is seen; no label holds an id."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # Events in the outbox that are not published: `waiting`; `refused`, tried
        # again; `invalid`, set aside until an operator corrects them.
        self._events = Gauge(
            f"{PREFIX}_events", "Events not published", ["state"], registry=registry
        )
        # How long the oldest event that is not set aside has waited.
        self._oldest = Gauge(
            f"{PREFIX}_oldest_wait_seconds", "Longest wait of an event", registry=registry
        )
        # Events that could not be written to the outbox; all but reused ids are recovered.
        self._held = Gauge(f"{PREFIX}_held_events", "Events held", registry=registry)
        # Events that the broker has confirmed to this process.
        self._published = Counter(
            f"{PREFIX}_events_published", "Events published", registry=registry
        )
        # Events that this process has set aside as invalid.
        self._invalid = Counter(f"{PREFIX}_events_set_aside", "Events set aside", registry=registry)
        # Publishes that the broker did not confirm, by the same causes as in the services.
        self._failed = Counter(
            f"{PREFIX}_publishes_failed", "Publishes not confirmed", ["cause"], registry=registry
        )
        # Published events that this process has deleted after their time.
        self._pruned = Counter(f"{PREFIX}_events_pruned", "Events deleted", registry=registry)
        # Held events that this process has moved into the outbox.
        self._recovered = Counter(
            f"{PREFIX}_events_recovered", "Events recovered", registry=registry
        )
        for state in STATES:
            self._events.labels(state)
        for cause in (*PUBLISH_FAILURES.values(), OTHER):
            self._failed.labels(cause)

    def published(self, events: int) -> None:
        """Count confirmed events."""
        self._published.inc(events)

    def set_aside(self, events: int) -> None:
        """Count invalid events."""
        self._invalid.inc(events)

    def publish_failed(self, error: PublishError) -> None:
        """Count a publish that was not confirmed."""
        self._failed.labels(PUBLISH_FAILURES.get(type(error), OTHER)).inc()

    def pruned(self, events: int) -> None:
        """Count deleted events."""
        self._pruned.inc(events)

    def recovered(self, events: int) -> None:
        """Count recovered events."""
        self._recovered.inc(events)

    def show(self, status: Status) -> None:
        """Set the gauges."""
        self._events.labels("waiting").set(status.waiting)
        self._events.labels("refused").set(status.refused)
        self._events.labels("invalid").set(status.invalid)
        self._held.set(status.held)
        self._oldest.set(status.oldest.total_seconds())
