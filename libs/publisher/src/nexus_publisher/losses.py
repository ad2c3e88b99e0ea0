"""Reports events that are dropped: counted, logged at most once a minute, and to a callback."""

import logging
import time
from collections.abc import Callable
from typing import Final

from nexus_publisher.counters import Counters
from nexus_publisher.log import log
from nexus_publisher.results import Dropped, DropReason

LOG_SECONDS: Final = 60.0
"""How often a reason is logged: a full spool drops every event of the host."""

OnDrop = Callable[[Dropped], object]


class Losses:
    """Reports from every thread."""

    def __init__(self, counters: Counters, on_drop: OnDrop | None) -> None:
        self._counters = counters
        self._on_drop = on_drop
        self._log_at: dict[str, float] = {}

    def report(self, dropped: Dropped) -> Dropped:
        """Count, log and report one event; return it."""
        count = self._counters.count_dropped(dropped.reason)
        if self._may_log(dropped.reason):
            text = "an event %s is dropped: %s: %s (%d dropped for this reason)"
            values = (dropped.event_type, dropped.reason, dropped.detail, count)
            log(logging.WARNING, text, *values)
        if self._on_drop is not None:
            try:
                self._on_drop(dropped)
            except Exception as error:  # noqa: BLE001 - the host's callback must not harm its host
                if self._may_log("on_drop"):
                    text = "the callback on_drop raised %s"
                    log(logging.WARNING, text, type(error).__name__)
        return dropped

    def _may_log(self, reason: DropReason | str) -> bool:
        now = time.monotonic()
        if now < self._log_at.get(reason, now):
            return False
        self._log_at[reason] = now + LOG_SECONDS
        return True
