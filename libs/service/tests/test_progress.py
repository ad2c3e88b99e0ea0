"""Detection of stalled work by the time without progress."""

import asyncio

import pytest

from nexus_service.progress import STALLED_AFTER, Activity, StallDetector, describe_stalls


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return its time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


def fail(activity: Activity) -> None:
    """Run a piece of work that fails."""
    with pytest.raises(OSError, match="away"), activity.working():
        raise OSError("away")


def test_work_that_never_ends_is_stalled_since_its_start(clock: Clock) -> None:
    """A statement that hangs on a lock."""
    activity = Activity(clock)

    with activity.working():
        clock.now += STALLED_AFTER + 1
        assert activity.stalled_seconds() == STALLED_AFTER + 1

    assert activity.stalled_seconds() == 0


def test_failing_work_is_stalled_since_its_first_error(clock: Clock) -> None:
    """A loop that fails in every round makes no progress."""
    activity = Activity(clock, continuous=True)
    with activity.working():
        pass

    for _ in range(10):
        fail(activity)
        clock.now += 10

    assert activity.stalled_seconds() == 100


def test_success_after_failures_is_progress(clock: Clock) -> None:
    """One successful round ends the stall."""
    activity = Activity(clock, continuous=True)
    fail(activity)
    clock.now += STALLED_AFTER + 1

    with activity.working():
        pass

    assert activity.stalled_seconds() == 0


def test_continuous_loop_without_rounds_is_stalled(clock: Clock) -> None:
    """A loop that has ended has no work in progress and no errors."""
    activity = Activity(clock, continuous=True)
    with activity.working():
        pass

    clock.now += STALLED_AFTER + 1

    assert activity.stalled_seconds() == STALLED_AFTER + 1


def test_handler_without_messages_is_not_stalled(clock: Clock) -> None:
    """Idle is not stalled; a single failure expires."""
    activity = Activity(clock)
    fail(activity)
    assert activity.stalled_seconds() == 0

    clock.now += 10 * STALLED_AFTER

    assert activity.stalled_seconds() == 0


def test_stalled_work_is_named_with_its_seconds(clock: Clock) -> None:
    """The health check shows the work and its seconds without progress."""
    loops = {"claim": Activity(clock, continuous=True), "relay": Activity(clock, continuous=True)}
    for loop in loops.values():
        with loop.working():
            pass
    assert describe_stalls(loops) is None

    clock.now += 61
    with loops["relay"].working():
        pass

    assert describe_stalls(loops) == "claim for 61 s"


async def test_no_stall_is_reported_until_a_minute_after_an_outage(
    clock: Clock,
) -> None:
    """Loops retry after half a minute, so they get a minute to recover."""
    activity, database = Activity(clock), "away"

    async def dependency() -> str | None:
        return database or None

    stalls = StallDetector({"claim": activity}, dependency, clock)
    with activity.working():
        clock.now += STALLED_AFTER + 1
        away = await stalls.fault()
        database = ""
        clock.now += STALLED_AFTER - 1
        back = await stalls.fault()
        clock.now += 2
        fault = await stalls.fault()

    assert (away, back) == (None, None)
    assert fault == "claim for 122 s"


async def test_silent_database_counts_as_unavailable(clock: Clock) -> None:
    """Liveness answers before the probe times out."""
    activity = Activity(clock)

    async def dependency() -> str | None:
        await asyncio.Event().wait()
        return None

    with activity.working():
        clock.now += STALLED_AFTER + 1
        async with asyncio.timeout(5):
            assert await StallDetector({"claim": activity}, dependency, clock).fault() is None


def test_work_without_errors_stall_stalls_only_in_progress(clock: Clock) -> None:
    """Idle is healthy; each end of a piece is progress, even with an error."""
    activity = Activity(clock, errors_stall=False)
    clock.now += 10 * STALLED_AFTER
    assert activity.stalled_seconds() == 0

    with activity.working():
        clock.now += STALLED_AFTER + 1
        assert activity.stalled_seconds() == STALLED_AFTER + 1
        activity.note_progress()
        assert activity.stalled_seconds() == 0
        fail(activity)
        clock.now += 1
        assert activity.stalled_seconds() == 1

    clock.now += STALLED_AFTER + 1
    assert activity.stalled_seconds() == 0


def test_work_stalls_after_its_own_limit(clock: Clock) -> None:
    """A sweep that asks Stripe for twenty customers may take minutes."""
    activities = {"sweep": Activity(clock, limit=600.0)}

    with activities["sweep"].working():
        clock.now += 600
        assert describe_stalls(activities) is None
        clock.now += 1
        assert describe_stalls(activities) == "sweep for 601 s"
