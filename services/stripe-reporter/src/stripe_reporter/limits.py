"""The limits on calls to Stripe: one at a time for a customer and meter, and so many a second.

Stripe takes no two concurrent meter events for one customer and meter
(https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api), and answers 429 to
more calls a second than the account may make (https://docs.stripe.com/rate-limits).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from nexus_messaging.topology import TIERS

MAX_IN_HAND: Final = 25
"""Reports of one customer and meter in hand, including the one being sent: few enough that one
customer never fills the prefetch."""

MAX_SOON: Final = 200
"""Reports of one customer and meter that may come again soon: several times what is sent until
then, so that the customer always has a report to send. The others come later, or a backlog would
keep the reporter busy with putting it off."""

SOON_SECONDS: Final = TIERS[0].wait.total_seconds()
"""The wait of the shortest retry tier."""

BURST_SECONDS: Final = 0.1
"""Calls saved up while idle, as seconds at the current rate."""

RECOVERY_SECONDS: Final = 60.0
"""From a rate of nothing to the full rate."""

ONE_SLOWDOWN_SECONDS: Final = 1.0
"""429s within this time count once: calls under way together are refused together."""

MIN_RATE: Final = 1.0
"""Calls per second that no number of 429s goes below."""


class CustomerBusyError(Exception):
    """Too many reports of a customer and meter are in hand: come again, ``soon`` or later."""

    def __init__(self, *, soon: bool) -> None:
        super().__init__("too many reports of one customer and meter are waiting")
        self.soon = soon


@dataclass(slots=True)
class _Customer:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    in_hand: int = 0
    put_off: int = 0
    since: float = 0.0

    def busy(self, now: float) -> CustomerBusyError:
        if now - self.since >= SOON_SECONDS:
            self.since, self.put_off = now, 0
        self.put_off += 1
        return CustomerBusyError(soon=self.put_off <= MAX_SOON)


class CustomerLimit:
    """Allows one call at a time for each customer and meter, in the order of arrival."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._customers: dict[Hashable, _Customer] = {}

    @asynccontextmanager
    async def slot(self, customer_and_meter: Hashable) -> AsyncIterator[None]:
        """Hold the only slot of a customer and meter, after those who came before.

        Raises:
            CustomerBusyError: too many came before.
        """
        customer = self._customers.setdefault(customer_and_meter, _Customer())
        if customer.in_hand >= MAX_IN_HAND:
            raise customer.busy(self._clock())
        customer.in_hand += 1
        try:
            async with customer.lock:
                yield
        finally:
            customer.in_hand -= 1
            if not customer.in_hand:
                del self._customers[customer_and_meter]


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """Calls per second, as a value. Times are seconds of one monotonic clock.

    ``rate_then`` was the rate at ``since``, when it was last lowered; it recovers to ``ceiling``.
    ``due`` is when the next call would be due if none had been saved up.
    """

    ceiling: float
    rate_then: float
    since: float
    due: float

    @classmethod
    def full(cls, ceiling: float, now: float) -> "TokenBucket":
        """Return a full bucket at its full rate."""
        return cls(ceiling=ceiling, rate_then=ceiling, since=now, due=now)

    def rate(self, now: float) -> float:
        """Return the calls per second that are allowed at ``now``."""
        recovered = self.ceiling * (now - self.since) / RECOVERY_SECONDS
        return min(self.ceiling, self.rate_then + recovered)

    def take(self, now: float) -> tuple["TokenBucket", float]:
        """Take the next call; return the bucket after it and the seconds to wait before it."""
        rate = self.rate(now)
        start = max(self.due, now - BURST_SECONDS)
        return replace(self, due=start + 1 / rate), max(0.0, start - now)

    def slowed_down(self, now: float) -> "TokenBucket":
        """Return the bucket at half its rate, after a 429."""
        if self.rate_then < self.ceiling and now - self.since < ONE_SLOWDOWN_SECONDS:
            return self
        lowest = min(MIN_RATE, self.ceiling)
        return replace(self, rate_then=max(lowest, self.rate(now) / 2), since=now)


class StripeRateLimit:
    """Lets calls through one after the other, in the order of arrival."""

    def __init__(self, calls_per_second: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._bucket = TokenBucket.full(calls_per_second, clock())
        self._turn = asyncio.Lock()

    @property
    def rate(self) -> float:
        """Return the calls per second that are let through now."""
        return self._bucket.rate(self._clock())

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Run the block when it is this call's turn, then wait until the call is due.

        The next call's turn begins only then.
        """
        async with self._turn:
            yield
            self._bucket, wait = self._bucket.take(self._clock())
            if wait > 0:
                await asyncio.sleep(wait)

    def slow_down(self) -> None:
        """Halve the rate; it recovers within about a minute."""
        self._bucket = self._bucket.slowed_down(self._clock())
