"""Whether the work moves: what `/healthz` asks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

STALLED_AFTER: Final = 60.0
"""Seconds. Of the reports in hand one moves at least once in a call's 10 s and a short pause."""


class Progress:
    """Counts what is in hand and notes when something last moved."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._in_hand = 0
        self._moved = clock()

    @property
    def in_hand(self) -> int:
        """Return how many reports are in hand."""
        return self._in_hand

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold a report in hand; taking the first and ending any of them are movements."""
        if not self._in_hand:
            self.moved()
        self._in_hand += 1
        try:
            yield
        finally:
            self._in_hand -= 1
            self.moved()

    def moved(self) -> None:
        """Note that a report got on."""
        self._moved = self._clock()

    async def fault(self) -> str | None:
        """Return that nothing moves though there is work, or nothing."""
        still = self._clock() - self._moved
        if not self._in_hand or still < STALLED_AFTER:
            return None
        return f"{self._in_hand} reports in hand, none moved for {still:.0f} s"
