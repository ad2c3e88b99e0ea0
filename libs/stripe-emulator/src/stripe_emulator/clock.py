"""The account's clock: real time plus an offset that a test may set.

Everything that ages (idempotency keys, identifiers, summaries, the search index, rate limits) reads
this one clock, so a test lives through a day by moving it instead of waiting.
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
        """Let the clock read ``now`` unix seconds from this moment on."""
        self._offset = now - self._source()

    def advance(self, seconds: float) -> None:
        """Move the clock by ``seconds``; a negative number moves it back."""
        self._offset += seconds
