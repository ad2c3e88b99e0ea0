"""Start, restart of loops, and shutdown."""

import asyncio
import os
import signal

import pytest

from nexus_messaging.cancellation import stray_cancellation_as_error
from nexus_service.errors import StoppedError
from nexus_service.lifecycle import (
    keep_running,
    resume_on_signal,
    run_until,
    stop_on_signal,
    wait_until_available,
)


class FakeConsumption:
    """A consumption whose drain takes ``duration`` seconds or raises ``error``."""

    def __init__(self, duration: float = 0.0, error: BaseException | None = None) -> None:
        self.duration = duration
        self.error = error
        self.seconds: float | None = None
        self.drained = False

    async def drain(self, seconds: float) -> None:
        """Finish after ``duration``."""
        self.seconds = seconds
        if self.error is not None:
            raise self.error
        await asyncio.sleep(self.duration)
        self.drained = True


async def forever() -> None:
    """Run until cancelled."""
    await asyncio.Event().wait()


@pytest.mark.parametrize("cause", [RuntimeError("s3cret"), asyncio.CancelledError(), None])
async def test_loop_that_ends_is_restarted(
    cause: BaseException | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """After an error, a library's own cancellation or a normal return."""
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

    keeping = asyncio.create_task(keep_running("loop", loop))
    async with asyncio.timeout(5):
        await again.wait()
    keeping.cancel()
    await asyncio.wait({keeping})

    assert keeping.cancelled()
    assert "s3cret" not in capsys.readouterr().out


async def test_requested_cancellation_is_raised() -> None:
    """Otherwise no task could be stopped."""

    async def work() -> None:
        with stray_cancellation_as_error():
            await forever()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()


async def test_unrequested_cancellation_is_connection_error() -> None:
    """Libraries raise it when a connection is lost."""
    with pytest.raises(ConnectionError), stray_cancellation_as_error():
        raise asyncio.CancelledError


async def test_error_of_no_class_is_connection_error() -> None:
    """What waits on a connection that aiormq closes may end with it."""
    with pytest.raises(ConnectionError), stray_cancellation_as_error():
        raise Exception  # noqa: TRY002 - what aiormq raises


async def test_error_of_a_class_is_raised_as_it_is() -> None:
    """It may be a bug."""
    with pytest.raises(LookupError), stray_cancellation_as_error():
        raise LookupError


async def test_timeout_around_block_is_a_timeout_error() -> None:
    """`asyncio.timeout` cancels too; it must raise TimeoutError."""

    async def work() -> None:
        with stray_cancellation_as_error():
            await forever()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(work(), 0.01)


async def test_stop_drains_before_it_cancels() -> None:
    """The loops run until the work in progress is finished."""
    stop, consumption = asyncio.Event(), FakeConsumption(duration=0.05)
    states = []

    async def loop() -> None:
        try:
            await forever()
        finally:
            states.append(consumption.drained)

    running = asyncio.create_task(run_until(stop, {"loop": loop}, [consumption], grace=10))
    await asyncio.sleep(0)
    stop.set()
    await running

    assert states == [True]
    assert consumption.seconds == pytest.approx(8)


async def test_stop_ends_after_the_grace_period() -> None:
    """The broker redelivers messages that were not drained."""
    stop, slow = asyncio.Event(), FakeConsumption(duration=60)
    stop.set()

    async with asyncio.timeout(5):
        await run_until(stop, {"loop": forever}, [slow], grace=0.05)

    assert not slow.drained


@pytest.mark.parametrize("error", [RuntimeError(), asyncio.CancelledError()])
async def test_failed_drain_does_not_stop_the_others(error: BaseException) -> None:
    """Each queue's deliveries are finished or handed back independently."""
    stop, failing, healthy = (
        asyncio.Event(),
        FakeConsumption(error=error),
        FakeConsumption(duration=0.05),
    )
    stop.set()

    await run_until(stop, {}, [failing, healthy], grace=5)

    assert healthy.drained


async def test_sigterm_sets_the_stop_event() -> None:
    """The loops are then stopped in order."""
    stop = asyncio.Event()
    stop_on_signal(stop)
    os.kill(os.getpid(), signal.SIGTERM)

    async with asyncio.timeout(5):
        await stop.wait()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)


async def test_start_waits_until_broker_is_available() -> None:
    """A service may start before its broker."""
    faults = [OSError(), OSError()]

    async def connect() -> str:
        if faults:
            raise faults.pop()
        return "connected"

    assert await wait_until_available("broker", connect, (OSError,), asyncio.Event()) == "connected"


async def test_stop_ends_waiting_at_start() -> None:
    """SIGTERM during the start is not a failure and takes effect immediately."""
    stop = asyncio.Event()

    async def never() -> None:
        stop.set()
        raise OSError

    with pytest.raises(StoppedError):
        await wait_until_available("broker", never, (OSError,), stop)


async def test_sigusr1_resumes_and_does_not_stop() -> None:
    """Also while the service waits for its database and has nothing to resume."""
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
