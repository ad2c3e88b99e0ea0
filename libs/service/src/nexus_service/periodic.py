"""A job that runs every few seconds, and immediately when it is woken."""

import asyncio
from collections.abc import Awaitable, Callable

from nexus_service.work import Work

Job = Callable[[], Awaitable[bool | None]]
"""Runs one round; returns whether there is more to do immediately."""


class Periodic:
    """Runs one round after the other.

    A wake-up only reduces latency: if one is lost, the next round does its work.

    Args:
        job: One round.
        work: Measures the rounds and detects stalls.
        every: Seconds from the end of a round to the start of the next, if nothing wakes the job.
        gather: Seconds of rest after a round that was woken. What comes meanwhile is the work of
            one round, and the first wake-up after it starts a round at once.
        intervals: How many intervals a round is put off at most while more comes in each of them.
    """

    def __init__(
        self, job: Job, work: Work, *, every: float, gather: float = 0.0, intervals: int = 1
    ) -> None:
        self._job = job
        self._work = work
        self._every = every
        self._gather = gather
        self._intervals = intervals
        self._woken = asyncio.Event()
        self._more_comes = False

    def wake(self, *, more_comes: bool = False) -> None:
        """Run a round now, or after the current one and its rest.

        If ``more_comes``, a job that gathers leaves it to the next wake-up, or to the interval in
        which no more comes.
        """
        if more_comes and self._gather:
            self._more_comes = True
        else:
            self._woken.set()

    async def run(self) -> None:
        """Run rounds until cancelled, or until a round raises an error."""
        while True:
            woken = self._woken.is_set()
            self._woken.clear()
            while await self._round():
                pass
            if woken:
                await asyncio.sleep(self._gather)
            await self._wait()

    async def _round(self) -> bool:
        with self._work.round():
            return bool(await self._job())

    async def _wait(self) -> None:
        for _ in range(self._intervals):
            self._more_comes = False
            if await self._woken_within(self._every) or not self._more_comes:
                return

    async def _woken_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._woken.wait()
        except TimeoutError:
            return False
