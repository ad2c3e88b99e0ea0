"""Every metric of the events API, by name. No label holds a key, a source or an id."""

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from nexus_messaging.topology import OUTSIDE_EVENTS
from nexus_service.problems import Code

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
        for data in OUTSIDE_EVENTS:
            self._events.labels(data.TYPE)

    def answered(self, answer: str, seconds: float) -> None:
        """Count a request and its duration."""
        self._requests.labels(answer).inc()
        self._seconds.observe(seconds)

    def confirmed(self, by_type: Mapping[str, int]) -> None:
        """Count events that the broker has confirmed."""
        for event_type, number in by_type.items():
            self._events.labels(event_type).inc(number)

    def in_hand(self, change: int) -> None:
        """Count ``change`` more bytes of bodies in memory."""
        self._bytes.inc(change)
