"""Turns: how many requests are answered at the same time, and which of the others may wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

MAX_WAIT_SECONDS: Final = 1.0
"""Who would wait longer is refused: features that ask have chosen what to do without an answer."""

MAX_WAITING_REQUESTS: Final = 200
"""Requests that wait. At some hundred answers a second, a further one would wait too long: it is
refused at once, which takes less work than to let its time run out."""


class NoTurnError(Exception):
    """There is no turn for a request within ``MAX_WAIT_SECONDS``."""


class Turns:
    """Lets ``at_once`` requests proceed; others wait in the order in which they came."""

    def __init__(self, at_once: int) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._waiting = 0

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Proceed when it is one's turn.

        Raises:
            NoTurnError: too many others wait, or the wait took too long.
        """
        await self._wait()
        try:
            yield
        finally:
            self._turns.release()

    async def _wait(self) -> None:
        if self._waiting >= MAX_WAITING_REQUESTS:
            raise NoTurnError
        self._waiting += 1
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            raise NoTurnError from None
        finally:
            self._waiting -= 1
