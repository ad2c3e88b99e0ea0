"""What was recorded, confirmed and dropped in this process since it started or forked."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from nexus_publisher.results import DropReason


@dataclass(frozen=True, slots=True)
class Stats:
    """A publisher at one moment.

    ``recorded``, ``confirmed`` and ``dropped`` count this process's events; ``confirmed`` counts
    those that it sent, which another process with the same spool may have recorded. ``spooled``
    and ``spool_bytes`` are the whole spool's; ``spooled`` is ``None`` while that can't be read.
    ``oldest_seconds`` is the age of the oldest event that waits, ``None`` if none does.
    """

    recorded: int
    confirmed: int
    dropped: Mapping[DropReason, int]
    in_memory: int
    spooled: int | None
    spool_bytes: int
    oldest_seconds: float | None
    metadata_left_out: int
    spools_set_aside: int


class Counters:
    """Counts from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.recorded = 0
        self.confirmed = 0
        self.metadata_left_out = 0
        self.spools_set_aside = 0
        self.dropped: Counter[DropReason] = Counter()

    def count_recorded(self, *, left_out: bool) -> None:
        """Count an event that is on disk or in memory."""
        with self._lock:
            self.recorded += 1
            self.metadata_left_out += left_out

    def count_confirmed(self, events: int) -> None:
        """Count events that the API or the broker confirmed."""
        with self._lock:
            self.confirmed += events

    def count_dropped(self, reason: DropReason) -> int:
        """Count a dropped event; return how many were dropped for this reason."""
        with self._lock:
            self.dropped[reason] += 1
            return self.dropped[reason]

    def count_spool_set_aside(self) -> None:
        """Count a spool file that was damaged."""
        with self._lock:
            self.spools_set_aside += 1
