"""The work of a service: the duration of each round, and whether the work is stalled."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram

from nexus_service.progress import STALLED_AFTER, Activity

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Work:
    """One kind of work of a service, counted in rounds: a batch, a job, a call."""

    def __init__(self, activity: Activity, seconds: Histogram) -> None:
        self._activity = activity
        self._seconds = seconds

    @property
    def in_hand(self) -> int:
        """The number of rounds in progress."""
        return self._activity.in_hand

    @contextmanager
    def round(self, *expected: type[Exception]) -> Iterator[None]:
        """Count a round as in progress while the context lasts; record its duration on success.

        A round that ends with an ``expected`` error is a success: the error is an answer, and no
        sign of a stall.
        """
        began, answer = time.perf_counter(), None
        with self._activity.working():
            try:
                yield
            except expected as error:
                answer = error
        self._seconds.observe(time.perf_counter() - began)
        if answer is not None:
            raise answer

    def note_progress(self) -> None:
        """Record that a round made progress."""
        self._activity.note_progress()


class WorkRegistry:
    """All work of a service by name, for `/healthz` and `/metrics`."""

    def __init__(self, registry: CollectorRegistry, *, service: str) -> None:
        prefix = service.replace("-", "_")
        self.activities: dict[str, Activity] = {}
        # Seconds of one successful round.
        self._seconds = Histogram(
            f"{prefix}_work_seconds",
            "Duration of a round",
            ["work"],
            buckets=_SECONDS,
            registry=registry,
        )
        # Seconds without progress although progress is expected.
        self._still = Gauge(
            f"{prefix}_work_still_seconds", "Without progress", ["work"], registry=registry
        )

    def add(
        self,
        name: str,
        *,
        continuous: bool = False,
        errors_stall: bool = True,
        limit: float = STALLED_AFTER,
    ) -> Work:
        """Register work under ``name``; see ``Activity`` for the other arguments."""
        activity = Activity(
            time.monotonic, continuous=continuous, errors_stall=errors_stall, limit=limit
        )
        self.activities[name] = activity
        self._still.labels(name).set_function(activity.stalled_seconds)
        return Work(activity, self._seconds.labels(name))
