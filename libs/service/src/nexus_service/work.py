"""What a service works at: how long each round takes, and whether the work moves."""

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
        """How many rounds are in hand."""
        return self._activity.in_hand

    @contextmanager
    def round(self) -> Iterator[None]:
        """Hold a round in hand; one that ends well is timed."""
        began = time.perf_counter()
        with self._activity.working():
            yield
        self._seconds.observe(time.perf_counter() - began)

    def moved(self) -> None:
        """Note that a round in hand got on."""
        self._activity.moved()


class Works:
    """The works of a service by name, as `/healthz` and `/metrics` see them."""

    def __init__(self, registry: CollectorRegistry, *, service: str) -> None:
        prefix = service.replace("-", "_")
        self.activities: dict[str, Activity] = {}
        # Seconds of one round of work that ended well.
        self._seconds = Histogram(
            f"{prefix}_work_seconds",
            "Duration of a round",
            ["work"],
            buckets=_SECONDS,
            registry=registry,
        )
        # Seconds for which that work has stood still though it should move.
        self._still = Gauge(
            f"{prefix}_work_still_seconds", "Without progress", ["work"], registry=registry
        )

    def add(
        self, name: str, *, steady: bool = False, fails: bool = True, limit: float = STALLED_AFTER
    ) -> Work:
        """Return the work of that name; see ``Activity`` for what the others mean."""
        activity = Activity(time.monotonic, steady=steady, fails=fails, limit=limit)
        self.activities[name] = activity
        self._still.labels(name).set_function(activity.still)
        return Work(activity, self._seconds.labels(name))
