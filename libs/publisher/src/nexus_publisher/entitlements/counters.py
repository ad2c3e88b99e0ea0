"""Where decisions came from and what they were, in this process since it started or forked."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from nexus_publisher.entitlements.decision import Why


class Source(StrEnum):
    """Where a call's answer came from, or why it had none."""

    HIT = "hit"
    """From the cache."""
    STALE = "stale"
    """From the cache, older than the API wanted, while a new answer is fetched."""
    FETCHED = "fetched"
    """From the API, within the budget."""
    TIMEOUT = "timeout"
    """None: the budget was over before the API answered."""
    UNAVAILABLE = "unavailable"
    """None: the API failed, or was not asked because it fails."""
    INVALID = "invalid"
    """None: the arguments can't be used."""


@dataclass(frozen=True, slots=True)
class EntitlementStats:
    """Each call is counted once by its source and once by why it was decided so."""

    sources: Mapping[Source, int]
    decisions: Mapping[Why, int]
    cached_users: int


class Counters:
    """Counts from every thread, and from a signal handler that interrupts one of them."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._sources: Counter[Source] = Counter()
        self._decisions: Counter[Why] = Counter()

    def count(self, source: Source, why: Why) -> int:
        """Count a call; return how many had this source."""
        with self._lock:
            self._sources[source] += 1
            self._decisions[why] += 1
            return self._sources[source]

    def stats(self, cached_users: int) -> EntitlementStats:
        """Return all counters, those that are zero too."""
        with self._lock:
            return EntitlementStats(
                {source: self._sources[source] for source in Source},
                {why: self._decisions[why] for why in Why},
                cached_users,
            )
