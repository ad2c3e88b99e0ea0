"""Jobs that are done periodically: when woken, in any case, and never silently stuck."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry

from nexus_service.periodic import Periodic
from nexus_service.work import Works


class Job:
    """Rounds that are counted; the first ``more`` of them say that there is more to do."""

    def __init__(self, more: int = 0) -> None:
        self.rounds = 0
        self.more = more
        self.done = asyncio.Event()

    async def go_round(self) -> bool:
        """Count a round."""
        self.rounds += 1
        if self.rounds > self.more:
            self.done.set()
        return self.rounds <= self.more


def periodic(job: Callable[[], Awaitable[bool]], *, every: float = 3600) -> Periodic:
    """Return a job that nobody watches."""
    work = Works(CollectorRegistry(), service="test").add("job", steady=True)
    return Periodic(job, work, every=every)


async def test_there_is_no_pause_while_there_is_more_to_do() -> None:
    """A backlog is worked off at once."""
    job = Job(more=3)
    task = asyncio.create_task(periodic(job.go_round).run())

    await asyncio.wait_for(job.done.wait(), 5)
    task.cancel()

    assert job.rounds == 4


async def test_a_wake_up_ends_the_pause() -> None:
    """What was just stored is not left waiting for the next round's time."""
    job = Job()
    woken = periodic(job.go_round)
    task = asyncio.create_task(woken.run())
    await asyncio.wait_for(job.done.wait(), 5)
    job.done.clear()

    woken.wake()
    await asyncio.wait_for(job.done.wait(), 5)
    task.cancel()

    assert job.rounds == 2


async def test_time_alone_ends_the_pause_too() -> None:
    """A lost wake-up strands nothing."""
    job = Job()
    task = asyncio.create_task(periodic(job.go_round, every=0.01).run())
    for _ in range(3):
        job.done.clear()
        await asyncio.wait_for(job.done.wait(), 5)
    task.cancel()

    assert job.rounds >= 3


async def test_round_that_fails_is_a_movement_where_failing_is_none() -> None:
    """An outage is no reason to be restarted: only a round that never ends is."""

    async def fail() -> bool:
        raise ConnectionError

    works = Works(CollectorRegistry(), service="test")
    failing = Periodic(fail, works.add("job", steady=True, fails=False), every=3600)

    for _ in range(3):
        with pytest.raises(ConnectionError):
            await failing.run()

    assert works.activities["job"].still() < 1


async def test_rounds_are_timed_by_their_work() -> None:
    """How long the work takes is a metric of every service."""
    registry = CollectorRegistry()
    works = Works(registry, service="usage-ingest")

    with works.add("claim").round():
        pass

    counted = registry.get_sample_value("usage_ingest_work_seconds_count", {"work": "claim"})
    still = registry.get_sample_value("usage_ingest_work_still_seconds", {"work": "claim"})
    assert (counted, still) == (1, 0)
