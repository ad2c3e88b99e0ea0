"""Detection of stalled work in handlers and periodic jobs, for `/healthz`.

An outage is not a stall: while the database or the broker is unavailable, `/readyz` fails, and a
restart would not help.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import Final

STALLED_AFTER: Final = 60.0
"""Seconds: twice the time limit of the slowest step, which is a database statement."""

CHECK_TIMEOUT: Final = 1.0
"""Seconds after which a dependency that has not answered counts as unavailable."""


class Activity:
    """One kind of work; several pieces may be in progress at once.

    Args:
        clock: Returns seconds.
        continuous: Whether the work runs all the time, not only while there is something to do.
        errors_stall: Whether work that only ends with errors is stalled. If not, every end of a
            piece is progress.
        limit: Seconds without progress after which the work is stalled.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        continuous: bool = False,
        errors_stall: bool = True,
        limit: float = STALLED_AFTER,
    ) -> None:
        self.limit = limit
        self._clock = clock
        self._continuous = continuous
        self._errors_stall = errors_stall
        self._in_hand = 0
        self._progress_at = 0.0
        self._ended_at: float | None = None
        self._failing_since: float | None = None

    @property
    def in_hand(self) -> int:
        """The number of pieces in progress."""
        return self._in_hand

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count a piece as in progress while the context lasts."""
        if not self._in_hand:
            self._progress_at = self._clock()
        self._in_hand += 1
        try:
            yield
        except BaseException:
            if not self._errors_stall:
                self.note_progress()
            elif self._failing_since is None:
                self._failing_since = self._progress_at
            raise
        else:
            self.note_progress()
        finally:
            self._in_hand -= 1
            self._ended_at = self._clock()

    def note_progress(self) -> None:
        """Record that a piece has ended or made progress."""
        self._failing_since = None
        self._progress_at = self._clock()

    def stalled_seconds(self) -> float:
        """Return the seconds without progress, or 0 if none is expected."""
        now = self._clock()
        if self._failing_since is not None and self._is_still_failing(now):
            return now - self._failing_since
        if self._in_hand:
            return now - self._progress_at
        if self._continuous and self._ended_at is not None:
            return now - self._ended_at
        return 0.0

    def _is_still_failing(self, now: float) -> bool:
        # A failure without a successor ends: another process may have taken over the work.
        return bool(self._in_hand) or self._continuous or now - (self._ended_at or 0.0) < self.limit


def describe_stalls(activities: Mapping[str, Activity]) -> str | None:
    """Return the stalled activities with their seconds without progress, or ``None``."""
    stalls = {name: activity.stalled_seconds() for name, activity in activities.items()}
    return (
        ", ".join(
            f"{name} for {seconds:.0f} s"
            for name, seconds in stalls.items()
            if seconds > activities[name].limit
        )
        or None
    )


class StallDetector:
    """Reports stalled work, unless its dependency is unavailable: then a restart does not help.

    ``dependency`` returns its fault, or ``None``. A dependency that does not answer is unavailable.
    """

    def __init__(
        self,
        activities: Mapping[str, Activity],
        dependency: Callable[[], Awaitable[str | None]],
        clock: Callable[[], float],
    ) -> None:
        self._activities = activities
        self._dependency = dependency
        self._clock = clock
        self._unavailable_at = -inf

    async def fault(self) -> str | None:
        """Return the stalled work; after an outage of the dependency it has a minute to recover."""
        fault = describe_stalls(self._activities)
        if fault is not None and await self._is_unavailable():
            self._unavailable_at = self._clock()
        return None if self._clock() - self._unavailable_at < STALLED_AFTER else fault

    async def _is_unavailable(self) -> bool:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                return await self._dependency() is not None
        except TimeoutError:
            return True
