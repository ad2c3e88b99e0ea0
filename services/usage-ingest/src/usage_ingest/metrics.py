"""Every metric of usage-ingest, by name; label values are touched at start, so increases show."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from usage_ingest.metering import BillingState


class IngestMetrics:
    """What the ledger took in, and what became of the reports."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # Tool runs by what recording them found: a billing state, or why not.
        self._events = Counter(
            "usage_ingest_events", "Tool runs received", ["outcome"], registry=registry
        )
        # Events that claims took, and the reports they became.
        self._claimed = Counter(
            "usage_ingest_events_claimed", "Events put into reports", registry=registry
        )
        self._reports = Counter(
            "usage_ingest_reports", "Reports by step", ["step"], registry=registry
        )
        # Usage of users whose customer is not known yet.
        self._waiting = Gauge(
            "usage_ingest_events_waiting", "Events waiting for a customer", registry=registry
        )
        for outcome in (
            *(state.value for state in BillingState if state is not BillingState.CLAIMED),
            "duplicate",
            "id_taken",
            "refused",
        ):
            self._events.labels(outcome)
        for step in ("created", "forwarded", "not_forwarded", "reported", "rejected", "superseded"):
            self._reports.labels(step)

    def recorded(self, state: BillingState) -> None:
        """Count a new event by the state it was recorded in."""
        self._events.labels(state.value).inc()

    def duplicate(self) -> None:
        """Count an event that the ledger had."""
        self._events.labels("duplicate").inc()

    def id_taken(self) -> None:
        """Count an event whose id belongs to another fact."""
        self._events.labels("id_taken").inc()

    def refused(self) -> None:
        """Count a message that is no acceptable event."""
        self._events.labels("refused").inc()

    def claimed(self, events: int, reports: int) -> None:
        """Count a claim."""
        self._claimed.inc(events)
        self._reports.labels("created").inc(reports)

    def forwarded(self, reports: int, failed: int) -> None:
        """Count reports that the broker confirmed, and those that it did not."""
        self._reports.labels("forwarded").inc(reports)
        self._reports.labels("not_forwarded").inc(failed)

    def answered(self, state: str) -> None:
        """Count an answer of the reporter."""
        self._reports.labels(state).inc()

    def swept(self, superseded: int, waiting: int) -> None:
        """Note what a sweep found."""
        self._reports.labels("superseded").inc(superseded)
        self._waiting.set(waiting)
