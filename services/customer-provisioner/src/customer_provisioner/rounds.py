"""A loop that goes round when it is woken, and every few seconds in any case."""

import asyncio
import time
from collections.abc import Awaitable, Callable


class Rounds:
    """Calls ``go_round``, which returns whether there is more to do at once.

    Waking is for speed only: what a lost wake-up leaves behind, the next round finds.
    """

    def __init__(self, go_round: Callable[[], Awaitable[bool]], *, every: float) -> None:
        self._go_round = go_round
        self._every = every
        self._woken = asyncio.Event()
        self._last: float | None = None

    def wake(self) -> None:
        """Go round now."""
        self._woken.set()

    async def run(self) -> None:
        """Go round and round until cancelled; what a round raises ends the loop."""
        self._last = self._last or time.monotonic()
        while True:
            self._woken.clear()
            try:
                more = await self._go_round()
            finally:
                self._last = time.monotonic()
            if not more:
                await self._wait()

    def since_last(self) -> float:
        """Return the seconds since a round ended, well or not, or since the first began."""
        return 0 if self._last is None else time.monotonic() - self._last

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._every):
                await self._woken.wait()
        except TimeoutError:
            return
