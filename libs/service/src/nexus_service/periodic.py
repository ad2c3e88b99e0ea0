"""A job that is done every few seconds, and at once when it is woken."""

import asyncio
from collections.abc import Awaitable, Callable

from nexus_service.work import Work

Job = Callable[[], Awaitable[bool | None]]
"""One round; returns whether there is more to do at once."""


class Periodic:
    """Does one round after the other.

    Waking is for speed only: what a lost wake-up leaves behind, the next round finds.

    Args:
        job: One round.
        work: Times the rounds and tells whether they move.
        every: Seconds from the end of a round to the next, if nothing wakes it.
        gather: Seconds between being woken and the round, in which more to do may come together.
    """

    def __init__(self, job: Job, work: Work, *, every: float, gather: float = 0.0) -> None:
        self._job = job
        self._work = work
        self._every = every
        self._gather = gather
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Do a round now, or after the one that is under way."""
        self._woken.set()

    async def run(self) -> None:
        """Do rounds until cancelled; what a round raises ends it."""
        while True:
            await asyncio.sleep(self._gather)
            self._woken.clear()
            while await self._round():
                pass
            await self._wait()

    async def _round(self) -> bool:
        with self._work.round():
            return bool(await self._job())

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._every):
                await self._woken.wait()
        except TimeoutError:
            return
