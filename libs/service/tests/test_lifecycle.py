"""Starting, keeping going and stopping."""

import asyncio
import os
import signal

import pytest

from nexus_messaging.cancellation import only_if_asked_for
from nexus_service.lifecycle import (
    StoppedError,
    keep_going,
    resume_on_signal,
    run_until,
    stop_on_signal,
    until_available,
)


class Hand:
    """Something to drain: it takes ``takes`` seconds, or fails with ``error``."""

    def __init__(self, takes: float = 0.0, error: BaseException | None = None) -> None:
        self.takes = takes
        self.error = error
        self.given: float | None = None
        self.empty = False

    async def drain(self, seconds: float) -> None:
        """Become empty-handed."""
        self.given = seconds
        if self.error is not None:
            raise self.error
        await asyncio.sleep(self.takes)
        self.empty = True


async def forever() -> None:
    """Run until cancelled."""
    await asyncio.Event().wait()


@pytest.mark.parametrize("cause", [RuntimeError("s3cret"), asyncio.CancelledError(), None])
async def test_a_loop_that_ends_is_run_again(
    cause: BaseException | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """By an error, by a library's own cancellation or just so: a silent end would bill nobody."""
    again = asyncio.Event()
    runs = 0

    async def loop() -> None:
        nonlocal runs
        runs += 1
        if runs > 1:
            again.set()
            await forever()
        if cause is not None:
            raise cause

    keeping = asyncio.create_task(keep_going("loop", loop))
    async with asyncio.timeout(5):
        await again.wait()
    keeping.cancel()
    await asyncio.wait({keeping})

    assert keeping.cancelled()
    assert "s3cret" not in capsys.readouterr().out


async def test_a_cancellation_that_was_asked_for_goes_through() -> None:
    """Else nothing could be stopped."""

    async def work() -> None:
        with only_if_asked_for():
            await forever()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()


async def test_a_cancellation_that_nobody_asked_for_is_a_lost_connection() -> None:
    """That is what it means where it comes from."""
    with pytest.raises(ConnectionError), only_if_asked_for():
        raise asyncio.CancelledError


async def test_a_deadline_around_still_works() -> None:
    """`asyncio.timeout` cancels too, and that must stay a timeout."""

    async def work() -> None:
        with only_if_asked_for():
            await forever()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(work(), 0.01)


async def test_stopping_drains_before_it_cancels() -> None:
    """The loops still run while what is in hand is finished."""
    stop, hand = asyncio.Event(), Hand(takes=0.05)
    states = []

    async def loop() -> None:
        try:
            await forever()
        finally:
            states.append(hand.empty)

    running = asyncio.create_task(run_until(stop, {"loop": loop}, [hand], grace=10))
    await asyncio.sleep(0)
    stop.set()
    await running

    assert states == [True]
    assert hand.given == pytest.approx(8)


async def test_stopping_takes_no_longer_than_the_grace() -> None:
    """What will not drain is left to the broker's redelivery."""
    stop, slow = asyncio.Event(), Hand(takes=60)
    stop.set()

    async with asyncio.timeout(5):
        await run_until(stop, {"loop": forever}, [slow], grace=0.05)

    assert not slow.empty


@pytest.mark.parametrize("error", [RuntimeError(), asyncio.CancelledError()])
async def test_one_failing_drain_does_not_stop_the_others(error: BaseException) -> None:
    """Each queue's deliveries are finished or handed back on their own."""
    stop, failing, fine = asyncio.Event(), Hand(error=error), Hand(takes=0.05)
    stop.set()

    await run_until(stop, {}, [failing, fine], grace=5)

    assert fine.empty


async def test_sigterm_sets_the_stop_event() -> None:
    """So that the end begins where the loops can be ended in order."""
    stop = asyncio.Event()
    stop_on_signal(stop)
    os.kill(os.getpid(), signal.SIGTERM)

    async with asyncio.timeout(5):
        await stop.wait()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)


async def test_starting_waits_for_what_is_not_there_yet() -> None:
    """A service may start before its broker."""
    faults = [OSError(), OSError()]

    async def connect() -> str:
        if faults:
            raise faults.pop()
        return "connected"

    assert await until_available("broker", connect, (OSError,), asyncio.Event()) == "connected"


async def test_waiting_at_the_start_ends_when_told_to_stop() -> None:
    """SIGTERM before the start is no failure, and takes no patience."""
    stop = asyncio.Event()

    async def never() -> None:
        stop.set()
        raise OSError

    with pytest.raises(StoppedError):
        await until_available("broker", never, (OSError,), stop)


async def test_the_signal_to_resume_resumes_and_ends_nothing() -> None:
    """Also while the service still waits for its database, when there is nothing to resume."""
    stop = asyncio.Event()
    stop_on_signal(stop)
    resumed = asyncio.Event()

    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.sleep(0)
    resume_on_signal(resumed.set)
    os.kill(os.getpid(), signal.SIGUSR1)

    async with asyncio.timeout(5):
        await resumed.wait()
    assert not stop.is_set()
