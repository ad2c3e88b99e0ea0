"""The account's clock: real time plus an offset that a test may set.

Idempotency keys, identifiers, summaries, the search index and rate limits use this clock, so a test
can move it by a day instead of waiting.
"""

import time
from collections.abc import Callable


class Clock:
    """A clock in unix seconds that runs on from wherever it was last set."""

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self._offset = 0.0

    def now(self) -> float:
        """Return the account's time in unix seconds."""
        return self._source() + self._offset

    def set(self, now: float) -> None:
        """Set the clock to ``now`` unix seconds; it runs on from there."""
        self._offset = now - self._source()

    def advance(self, seconds: float) -> None:
        """Move the clock by ``seconds``; a negative number moves it back."""
        self._offset += seconds
