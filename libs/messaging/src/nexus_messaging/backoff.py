"""Exponential backoff."""

import asyncio


class Backoff:
    """Pauses that double from ``first`` seconds up to ``longest``."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._pause = first

    def reset(self) -> None:
        """Start again with the first pause, after a success."""
        self._pause = self._first

    def next(self) -> float:
        """Return the next pause, in seconds, and double the one after it."""
        pause, self._pause = self._pause, min(self._pause * 2, self._longest)
        return pause

    async def wait(self) -> None:
        """Sleep for the next pause."""
        await asyncio.sleep(self.next())
