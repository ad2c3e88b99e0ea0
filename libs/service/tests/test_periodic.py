"""Periodic jobs: wake-ups, intervals and stall detection."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry

from nexus_service.periodic import Periodic
from nexus_service.work import WorkRegistry


class Job:
    """Counts rounds; the first ``more`` of them report that there is more to do."""

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


def periodic(
    job: Callable[[], Awaitable[bool]],
    *,
    every: float = 3600,
    gather: float = 0.0,
    intervals: int = 1,
) -> Periodic:
    """Return a periodic job without other observers."""
    work = WorkRegistry(CollectorRegistry(), service="test").add("job", continuous=True)
    return Periodic(job, work, every=every, gather=gather, intervals=intervals)


async def test_backlog_is_processed_without_pause() -> None:
    """A round that reports more work is followed by another one."""
    job = Job(more=3)
    task = asyncio.create_task(periodic(job.go_round).run())

    await asyncio.wait_for(job.done.wait(), 5)
    task.cancel()

    assert job.rounds == 4


async def test_wake_up_ends_the_pause() -> None:
    """New work is processed immediately."""
    job = Job()
    woken = periodic(job.go_round)
    task = asyncio.create_task(woken.run())
    await asyncio.wait_for(job.done.wait(), 5)
    job.done.clear()

    woken.wake()
    await asyncio.wait_for(job.done.wait(), 5)
    task.cancel()

    assert job.rounds == 2


async def test_first_wake_up_is_not_delayed_and_the_next_are_gathered() -> None:
    """Work of a quiet system is done at once, and a stream of it in few rounds."""
    job = Job()
    gathering = periodic(job.go_round, gather=3600)
    task = asyncio.create_task(gathering.run())
    await asyncio.wait_for(job.done.wait(), 5)
    job.done.clear()

    gathering.wake()
    await asyncio.wait_for(job.done.wait(), 5)
    for _ in range(5):
        gathering.wake()
        await asyncio.sleep(0)
    task.cancel()

    assert job.rounds == 2


async def test_wake_up_during_a_rest_is_a_round_after_it() -> None:
    """It is not lost."""
    job = Job()
    gathering = periodic(job.go_round, gather=0.01)
    task = asyncio.create_task(gathering.run())
    for _ in range(3):
        await asyncio.wait_for(job.done.wait(), 5)
        job.done.clear()
        gathering.wake()
    await asyncio.wait_for(job.done.wait(), 5)
    task.cancel()

    assert job.rounds == 4


async def test_wake_up_is_left_to_the_next_if_more_comes() -> None:
    """Only a job that gathers waits for more."""
    for gather, rounds in ((0.001, 1), (0.0, 2)):
        job = Job()
        woken = periodic(job.go_round, gather=gather)
        task = asyncio.create_task(woken.run())
        await asyncio.wait_for(job.done.wait(), 5)

        woken.wake(more_comes=True)
        for _ in range(5):
            await asyncio.sleep(0)
        assert job.rounds == rounds

        job.done.clear()
        woken.wake()
        await asyncio.wait_for(job.done.wait(), 5)
        task.cancel()


async def test_round_is_put_off_for_some_intervals_while_more_comes() -> None:
    """Without more in the first of them, and beyond the last, the round runs."""
    at_each, put_off, idle = Job(), Job(), Job()
    jobs = (
        (periodic(at_each.go_round, every=0.005, gather=0.001), True),
        (periodic(put_off.go_round, every=0.005, gather=0.001, intervals=4), True),
        (periodic(idle.go_round, every=0.005, gather=0.001, intervals=4), False),
    )
    tasks = [asyncio.create_task(job.run()) for job, _ in jobs]

    async with asyncio.timeout(10):
        while put_off.rounds < 4:
            for job, busy in jobs:
                if busy:
                    job.wake(more_comes=True)
            await asyncio.sleep(0)
    for task in tasks:
        task.cancel()

    assert at_each.rounds > 2 * put_off.rounds
    assert idle.rounds > 2 * put_off.rounds


async def test_pause_ends_without_wake_up() -> None:
    """A lost wake-up only delays work."""
    job = Job()
    task = asyncio.create_task(periodic(job.go_round, every=0.01).run())
    for _ in range(3):
        job.done.clear()
        await asyncio.wait_for(job.done.wait(), 5)
    task.cancel()

    assert job.rounds >= 3


async def test_failed_round_is_progress_without_errors_stall() -> None:
    """Liveness does not fail during an outage, only if a round never ends."""

    async def fail() -> bool:
        raise ConnectionError

    works = WorkRegistry(CollectorRegistry(), service="test")
    failing = Periodic(fail, works.add("job", continuous=True, errors_stall=False), every=3600)

    for _ in range(3):
        with pytest.raises(ConnectionError):
            await failing.run()

    assert works.activities["job"].stalled_seconds() < 1


async def test_round_duration_is_measured() -> None:
    """It is a metric of every service."""
    registry = CollectorRegistry()
    works = WorkRegistry(registry, service="usage-ingest")

    with works.add("claim").round():
        pass

    counted = registry.get_sample_value("usage_ingest_work_seconds_count", {"work": "claim"})
    still = registry.get_sample_value("usage_ingest_work_still_seconds", {"work": "claim"})
    assert (counted, still) == (1, 0)


async def test_expected_error_is_raised_and_no_failure() -> None:
    """A row that can never be stored is an answer of the database."""
    works = WorkRegistry(CollectorRegistry(), service="test")
    work = works.add("record", continuous=True)

    for _ in range(3):
        with pytest.raises(LookupError), work.round(LookupError):
            raise LookupError
    assert works.activities["record"]._failing_since is None
    with pytest.raises(OSError, match="away"), work.round(LookupError):
        raise OSError("away")

    assert works.activities["record"]._failing_since is not None
