"""How fast Stripe is called: a token bucket that slows when told to, and its waiting room."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

BURST_SECONDS: Final = 0.1
"""Calls saved up while idle, as seconds at the current rate."""

RECOVERY_SECONDS: Final = 60.0
"""From standstill to the ceiling again."""

ONE_SLOWING_SECONDS: Final = 1.0
"""The 429s of one moment are one sign, not many."""

SLOWEST: Final = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """A token bucket as a value; rates are calls per second, times are seconds of one clock.

    ``due`` is when the next call would be due if none had been saved up.
    """

    ceiling: float
    base: float
    since: float
    due: float

    @classmethod
    def at(cls, ceiling: float, now: float) -> "Pace":
        """Return a bucket that is full and at full speed."""
        return cls(ceiling=ceiling, base=ceiling, since=now, due=now)

    def rate(self, now: float) -> float:
        """Return the calls per second at ``now``: what it was slowed to, and what it recovered."""
        recovered = self.ceiling * (now - self.since) / RECOVERY_SECONDS
        return min(self.ceiling, self.base + recovered)

    def taken(self, now: float) -> tuple["Pace", float]:
        """Take the next call; return the bucket after it and the seconds to wait before it."""
        rate = self.rate(now)
        start = max(self.due, now - BURST_SECONDS)
        return replace(self, due=start + 1 / rate), max(0.0, start - now)

    def slowed(self, now: float) -> "Pace":
        """Return the bucket at half its rate, after Stripe said that we call too fast."""
        if self.base < self.ceiling and now - self.since < ONE_SLOWING_SECONDS:
            return self
        slowest = min(SLOWEST, self.ceiling)
        return replace(self, base=max(slowest, self.rate(now) / 2), since=now)


class Pacing:
    """Lets calls through one after the other, in the order they came."""

    def __init__(self, calls_per_second: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pace = Pace.at(calls_per_second, clock())
        self._turn = asyncio.Lock()

    @property
    def rate(self) -> float:
        """Return the calls per second that are let through now."""
        return self._pace.rate(self._clock())

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the turn; what the block checks is still true when the next call is due."""
        async with self._turn:
            yield
            self._pace, wait = self._pace.taken(self._clock())
            if wait > 0:
                await asyncio.sleep(wait)

    def slow_down(self) -> None:
        """Halve the rate; it recovers within about a minute."""
        self._pace = self._pace.slowed(self._clock())
