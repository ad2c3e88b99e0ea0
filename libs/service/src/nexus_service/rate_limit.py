"""Limits how much each API key may send to this process: token buckets, with the clock passed in.

Each process counts by itself: behind a load balancer, a key may send that much to each of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class RateLimit:
    """A bucket of ``burst`` tokens for each name, refilled by ``rate`` tokens a second.

    The names are those of configured keys, so there are few.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, name: str, tokens: int) -> int:
        """Take ``tokens``, at most ``burst``, from the bucket of ``name``, all or none.

        Returns:
            0 if they were taken; else the whole seconds until they can be.
        """
        now = self._clock()
        bucket = self._buckets.setdefault(name, _Bucket(self._burst, now))
        refilled = bucket.tokens + (now - bucket.filled_at) * self._rate
        bucket.tokens, bucket.filled_at = min(self._burst, refilled), now
        if bucket.tokens < tokens:
            return ceil((tokens - bucket.tokens) / self._rate)
        bucket.tokens -= tokens
        return 0
