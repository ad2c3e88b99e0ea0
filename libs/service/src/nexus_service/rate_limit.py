"""Limits how much each API key may send to this process: token buckets, with the clock passed in.

Each process counts by itself: behind a load balancer, a key may send that much to each of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Final


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


MAX_BUCKETS: Final = 10_000
"""Above so many, those that are full again are dropped: they say no more than a new one."""


class RateLimiter:
    """A bucket of ``burst`` tokens for each name, refilled by ``rate`` tokens a second.

    The names are those of configured keys, or of users whose tokens were verified.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        self._drop_at = MAX_BUCKETS

    def take(self, name: str, tokens: int) -> int:
        """Take ``tokens``, at most ``burst``, from the bucket of ``name``, all or none.

        Returns:
            0 if they were taken; else the whole seconds until they can be.
        """
        now = self._clock()
        if len(self._buckets) >= self._drop_at:
            self._drop_full(now)
        bucket = self._buckets.setdefault(name, _Bucket(self._burst, now))
        refilled = bucket.tokens + (now - bucket.filled_at) * self._rate
        bucket.tokens, bucket.filled_at = min(self._burst, refilled), now
        if bucket.tokens < tokens:
            return ceil((tokens - bucket.tokens) / self._rate)
        bucket.tokens -= tokens
        return 0

    def _drop_full(self, now: float) -> None:
        fills_in = self._burst / self._rate
        self._buckets = {
            name: each for name, each in self._buckets.items() if now - each.filled_at < fills_in
        }
        # So that a crowd of buckets that are all in use is not looked through at each request.
        self._drop_at = max(MAX_BUCKETS, 2 * len(self._buckets))
