"""Loops that go round: woken, in any case, and never silently stuck."""

import asyncio

import pytest

from customer_provisioner.rounds import Rounds


class Work:
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


async def test_there_is_no_pause_while_there_is_more_to_do() -> None:
    """A backlog is worked off at once."""
    work = Work(more=3)
    task = asyncio.create_task(Rounds(work.go_round, every=3600).run())

    await asyncio.wait_for(work.done.wait(), 5)
    task.cancel()

    assert work.rounds == 4


async def test_a_wake_up_ends_the_pause() -> None:
    """What was just stored is not left waiting for the next round's time."""
    work = Work()
    rounds = Rounds(work.go_round, every=3600)
    task = asyncio.create_task(rounds.run())
    await asyncio.wait_for(work.done.wait(), 5)
    work.done.clear()

    rounds.wake()
    await asyncio.wait_for(work.done.wait(), 5)
    task.cancel()

    assert work.rounds == 2


async def test_time_alone_ends_the_pause_too() -> None:
    """A lost wake-up strands nothing."""
    work = Work()
    task = asyncio.create_task(Rounds(work.go_round, every=0.01).run())
    for _ in range(3):
        work.done.clear()
        await asyncio.wait_for(work.done.wait(), 5)
    task.cancel()

    assert work.rounds >= 3


async def test_a_round_that_fails_is_progress_all_the_same() -> None:
    """An outage is no reason to be restarted: only a round that never ends is."""

    async def fail() -> bool:
        raise ConnectionError

    rounds = Rounds(fail, every=3600)
    before = rounds.since_last()

    with pytest.raises(ConnectionError):
        await rounds.run()

    assert rounds.since_last() <= before + 1
