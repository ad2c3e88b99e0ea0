"""Every metric of the events API, by name. No label holds a key, a source or an id."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from nexus_service.problems import Code
from usage_ingest.events_api.reading import ACCEPTED

CONFIRMED: Final = "confirmed"
DISCONNECTED: Final = "disconnected"

_SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)


class Metrics:
    """What was accepted, and what was refused and why."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # Requests by answer: confirmed, the code of a problem, or disconnected without an answer.
        self._requests = Counter(
            "events_api_requests", "Requests answered", ["answer"], registry=registry
        )
        # Events that the broker has confirmed, by type.
        self._events = Counter("events_api_events", "Events published", ["type"], registry=registry)
        # Seconds from the end of a request's headers to its answer, of all answers.
        self._seconds = Histogram(
            "events_api_request_seconds", "Duration", buckets=_SECONDS, registry=registry
        )
        # Bytes of bodies that are being read or published.
        self._bytes = Gauge("events_api_body_bytes", "Bytes in hand", registry=registry)
        for answer in (CONFIRMED, DISCONNECTED, *Code):
            self._requests.labels(answer)
        for data in ACCEPTED:
            self._events.labels(data.TYPE)

    def answered(self, answer: str, seconds: float) -> None:
        """Count a request and its duration."""
        self._requests.labels(answer).inc()
        self._seconds.observe(seconds)

    def confirmed(self, event_type: str) -> None:
        """Count an event that the broker has confirmed."""
        self._events.labels(event_type).inc()

    def in_hand(self, change: int) -> None:
        """Count ``change`` more bytes of bodies in memory."""
        self._bytes.inc(change)
