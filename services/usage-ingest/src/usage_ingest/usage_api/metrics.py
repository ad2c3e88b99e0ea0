"""Every metric of the usage API, by name. No label holds a key, a user or an account."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from nexus_service.problems import Code

OK: Final = "ok"
NOT_MODIFIED: Final = "not_modified"
ENTITLEMENTS: Final = "entitlements"
USAGE: Final = "usage"
ROUTES: Final = (ENTITLEMENTS, USAGE)

_SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """What was answered, and how fast."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # Requests by route and answer: ok, not_modified, or the code of a problem.
        self._requests = Counter(
            "usage_api_requests", "Requests answered", ["route", "answer"], registry=registry
        )
        # Seconds from the end of a request's headers to its answer, of all answers of a route.
        self._seconds = Histogram(
            "usage_api_request_seconds", "Duration", ["route"], buckets=_SECONDS, registry=registry
        )
        for route in ROUTES:
            for answer in (OK, NOT_MODIFIED, *Code):
                self._requests.labels(route, answer)
            self._seconds.labels(route)

    def answered(self, route: str, answer: str, seconds: float) -> None:
        """Count a request and its duration."""
        self._requests.labels(route, answer).inc()
        self._seconds.labels(route).observe(seconds)
