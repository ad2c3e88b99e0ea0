"""Exponential backoff."""

import asyncio
from typing import Final

MAX_DOUBLINGS: Final = 64
"""No pause is worth more of them, and a float holds 1,023: an outage of a day may exceed that."""


def pause_after(failures: int, first: float, longest: float) -> float:
    """Return the pause after ``failures``: ``first`` doubled for each, up to ``longest``."""
    doubled: float = first * 2.0 ** min(failures, MAX_DOUBLINGS)
    return min(doubled, longest)


class Backoff:
    """Pauses that double from ``first`` seconds up to ``longest``."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._failures = 0

    def reset(self) -> None:
        """Start again with the first pause, after a success."""
        self._failures = 0

    def next(self) -> float:
        """Return the next pause, in seconds, and double the one after it."""
        pause = pause_after(self._failures, self._first, self._longest)
        self._failures += 1
        return pause

    async def wait(self) -> None:
        """Sleep for the next pause."""
        await asyncio.sleep(self.next())
