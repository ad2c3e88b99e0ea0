"""Rate limits: token buckets, and the reason for which a call is refused."""

from stripe_emulator.errors import rate_limited
from stripe_emulator.options import Options


class TokenBucket:
    """Allows ``rate`` calls per second, and that many at once."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._at: float | None = None

    def take(self, rate: float, now: float) -> bool:
        """Take one token at ``now`` (unix seconds), if there is one."""
        if self._at is not None:
            self._spent = max(0.0, self._spent - max(0.0, now - self._at) * rate)
        self._at = now
        if self._spent + 1 > max(1.0, rate):
            return False
        self._spent += 1
        return True


class RateLimits:
    """The account's buckets: one for all calls, one for searches."""

    def __init__(self) -> None:
        self._basic = TokenBucket()
        self._search = TokenBucket()

    def admit(self, path: str, options: Options, now: float) -> None:
        """Refuse a call beyond the limits.

        Raises:
            StripeError: 429 with ``Stripe-Rate-Limited-Reason``: ``global-rate`` for the basic
                limit, ``endpoint-rate`` for that of searches.
        """
        if not options.rate_limits:
            return
        if not self._basic.take(options.basic_per_second, now):
            raise rate_limited("global-rate")
        if path.endswith("/search") and not self._search.take(options.search_per_second, now):
            raise rate_limited("endpoint-rate")
