"""Whether work moves: what `/healthz` asks of handlers and periodic jobs.

An outage is no stall: while the database or the broker is away, `/readyz` says so, and a restart
would mend nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import Final

STALLED_AFTER: Final = 60.0
"""Seconds: twice what the slowest single step, a statement at the database, may take."""

ANSWERS_WITHIN: Final = 1.0
"""Seconds after which what the work needs counts as away, if it has not answered."""


class Activity:
    """One kind of work, several pieces of which may be in hand at once.

    Args:
        clock: Returns seconds.
        steady: Whether the work goes on all the time, not only while there is something to do.
        fails: Whether a piece that ends with an error is a failure: work that only fails is as
            still as work that never ends. Without it every end counts as movement.
        limit: After how many seconds without movement the work has stalled.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        steady: bool = False,
        fails: bool = True,
        limit: float = STALLED_AFTER,
    ) -> None:
        self.limit = limit
        self._clock = clock
        self._steady = steady
        self._fails = fails
        self._in_hand = 0
        self._moved = 0.0
        self._ended: float | None = None
        self._failing_since: float | None = None

    @property
    def in_hand(self) -> int:
        """How many pieces of work are in hand."""
        return self._in_hand

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold a piece of work in hand."""
        if not self._in_hand:
            self._moved = self._clock()
        self._in_hand += 1
        try:
            yield
        except BaseException:
            if not self._fails:
                self.moved()
            elif self._failing_since is None:
                self._failing_since = self._moved
            raise
        else:
            self.moved()
        finally:
            self._in_hand -= 1
            self._ended = self._clock()

    def moved(self) -> None:
        """Note that a piece in hand has ended, or got on."""
        self._failing_since = None
        self._moved = self._clock()

    def still(self) -> float:
        """Return for how many seconds nothing moved though something should have."""
        now = self._clock()
        if self._failing_since is not None and self._may_fail_again(now):
            return now - self._failing_since
        if self._in_hand:
            return now - self._moved
        if self._steady and self._ended is not None:
            return now - self._ended
        return 0.0

    def _may_fail_again(self, now: float) -> bool:
        # A failure that nothing followed is over: the work may have gone to another process.
        return bool(self._in_hand) or self._steady or now - (self._ended or 0.0) < self.limit


def stalled(activities: Mapping[str, Activity]) -> str | None:
    """Name the activities that stand still, and since when, or return nothing."""
    still = {name: activity.still() for name, activity in activities.items()}
    return (
        ", ".join(
            f"{name} for {seconds:.0f} s"
            for name, seconds in still.items()
            if seconds > activities[name].limit
        )
        or None
    )


class Stalls:
    """What stands still, unless it is because of what the work needs: then a restart mends nothing.

    ``needed`` says what is wrong there, or nothing; silence is wrong, too.
    """

    def __init__(
        self,
        activities: Mapping[str, Activity],
        needed: Callable[[], Awaitable[str | None]],
        clock: Callable[[], float],
    ) -> None:
        self._activities = activities
        self._needed = needed
        self._clock = clock
        self._away_at = -inf

    async def fault(self) -> str | None:
        """Say what stands still; loops have a minute to move again once what they need is back."""
        fault = stalled(self._activities)
        if fault is not None and await self._is_away():
            self._away_at = self._clock()
        return None if self._clock() - self._away_at < STALLED_AFTER else fault

    async def _is_away(self) -> bool:
        try:
            async with asyncio.timeout(ANSWERS_WITHIN):
                return await self._needed() is not None
        except TimeoutError:
            return True
