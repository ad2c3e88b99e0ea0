"""Whether work moves: what `/healthz` asks of loops and handlers.

An outage is no stall: while the database or the broker is away, `/readyz` says so, and a restart
would mend nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

STALLED_AFTER: Final = 60.0
"""Seconds: twice what the slowest single step, a statement at the database, may take."""


class Activity:
    """One kind of work. ``steady`` work goes round all the time, other work only when there is any.

    Work moves when it ends well. Work that always ends badly is as still as work that never ends.
    """

    def __init__(self, clock: Callable[[], float], *, steady: bool = False) -> None:
        self._clock = clock
        self._steady = steady
        self._in_hand = 0
        self._begun = 0.0
        self._ended: float | None = None
        self._failing_since: float | None = None

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold a piece of work in hand."""
        if not self._in_hand:
            self._begun = self._clock()
        self._in_hand += 1
        try:
            yield
        except BaseException:
            if self._failing_since is None:
                self._failing_since = self._begun
            raise
        else:
            self._failing_since = None
            self._begun = self._clock()
        finally:
            self._in_hand -= 1
            self._ended = self._clock()

    def still(self) -> float:
        """Return for how many seconds nothing moved though something should have."""
        now = self._clock()
        if self._failing_since is not None and self._fresh(now):
            return now - self._failing_since
        if self._in_hand:
            return now - self._begun
        if self._steady and self._ended is not None:
            return now - self._ended
        return 0.0

    def _fresh(self, now: float) -> bool:
        # A failure that nothing followed is over: the work may have gone to another process.
        return bool(self._in_hand) or self._steady or now - (self._ended or 0.0) < STALLED_AFTER


def stalled(activities: dict[str, Activity]) -> str | None:
    """Name the activities that stand still, and since when, or return nothing."""
    still = {name: activity.still() for name, activity in activities.items()}
    return (
        ", ".join(
            f"{name} for {seconds:.0f} s"
            for name, seconds in still.items()
            if seconds > STALLED_AFTER
        )
        or None
    )
