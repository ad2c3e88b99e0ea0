"""When the usage API may be asked: pure, the clock and chance passed in."""

from dataclasses import dataclass
from typing import Final

MAX_REQUESTS: Final = 1000
"""Requests that are under way or wait for a connection; a further user gets no answer."""

FAILURES_TO_OPEN: Final = 3
"""One user whose answer fails must not keep the others from theirs."""

FIRST_PAUSE: Final = 0.25
MAX_PAUSE: Final = 10.0
"""Seconds. Each pause is at least half of a limit, which doubles from the first to the longest."""

MAX_WAIT: Final = 60.0
"""Seconds. A longer ``Retry-After`` is taken for a mistake of a gateway."""

MAX_DOUBLINGS: Final = 16
"""No pause is worth more of them, and a float holds 1,023."""


@dataclass(slots=True)
class Circuit:
    """Counts failures in a row. While it is open no call waits for an API that does not answer."""

    failures: int = 0
    open_until: float = 0.0

    @property
    def opened(self) -> bool:
        """Return whether it is open or, after its pause, half-open."""
        return self.failures >= FAILURES_TO_OPEN

    def may_ask(self, now: float, under_way: int) -> bool:
        """Return whether one more request may begin; after a pause one alone tries."""
        if self.opened:
            return now >= self.open_until and under_way == 0
        return under_way < MAX_REQUESTS

    def succeeded(self) -> None:
        """Close."""
        self.failures, self.open_until = 0, 0.0

    def failed(self, now: float, *, chance: float, retry_after: float | None = None) -> None:
        """Note a failure; ``chance`` is a random number in [0, 1).

        Requests that began before a pause and end in it are part of the failure that opened it.
        """
        if now < self.open_until:
            return
        self.failures += 1
        if retry_after is not None:
            self.failures = max(self.failures, FAILURES_TO_OPEN)
        if self.opened:
            doublings = min(self.failures - FAILURES_TO_OPEN, MAX_DOUBLINGS)
            limit = min(FIRST_PAUSE * 2.0**doublings, MAX_PAUSE)
            asked = min(retry_after or 0.0, MAX_WAIT)
            self.open_until = now + max(limit * (1 + chance) / 2, asked)
