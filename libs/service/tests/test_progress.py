"""Work moves when it ends well; everything else is told by how long nothing did."""

import asyncio

import pytest

from nexus_service.progress import STALLED_AFTER, Activity, Stalls, stalled


class Clock:
    """A clock that is moved by hand."""

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
    """Let a piece of work end badly."""
    with pytest.raises(OSError, match="away"), activity.working():
        raise OSError("away")


def test_work_that_never_ends_stands_still_since_it_began(clock: Clock) -> None:
    """A statement that hangs on a lock."""
    activity = Activity(clock)

    with activity.working():
        clock.now += STALLED_AFTER + 1
        assert activity.still() == STALLED_AFTER + 1

    assert activity.still() == 0


def test_work_that_always_ends_badly_stands_still_since_its_first_failure(clock: Clock) -> None:
    """A loop that raises at every round looks busy and gets nowhere."""
    activity = Activity(clock, steady=True)
    with activity.working():
        pass

    for _ in range(10):
        fail(activity)
        clock.now += 10

    assert activity.still() == 100


def test_work_that_ends_well_again_moves(clock: Clock) -> None:
    """One good round ends the count."""
    activity = Activity(clock, steady=True)
    fail(activity)
    clock.now += STALLED_AFTER + 1

    with activity.working():
        pass

    assert activity.still() == 0


def test_a_steady_loop_that_no_longer_goes_round_stands_still(clock: Clock) -> None:
    """A dead loop holds nothing in hand and fails at nothing."""
    activity = Activity(clock, steady=True)
    with activity.working():
        pass

    clock.now += STALLED_AFTER + 1

    assert activity.still() == STALLED_AFTER + 1


def test_a_handler_without_messages_is_at_rest(clock: Clock) -> None:
    """Only work that there is can stand still, and a lone failure is over after a while."""
    activity = Activity(clock)
    fail(activity)
    assert activity.still() == 0

    clock.now += 10 * STALLED_AFTER

    assert activity.still() == 0


def test_what_stands_still_is_named(clock: Clock) -> None:
    """The health check's answer says which work, and for how long."""
    loops = {"claim": Activity(clock, steady=True), "relay": Activity(clock, steady=True)}
    for loop in loops.values():
        with loop.working():
            pass
    assert stalled(loops) is None

    clock.now += 61
    with loops["relay"].working():
        pass

    assert stalled(loops) == "claim for 61 s"


async def test_what_stands_still_is_excused_while_the_database_is_away_and_a_minute_longer(
    clock: Clock,
) -> None:
    """Loops wait half a minute before they try again; then it is their own fault."""
    activity, database = Activity(clock), "away"

    async def needed() -> str | None:
        return database or None

    stalls = Stalls({"claim": activity}, needed, clock)
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


async def test_a_database_that_says_nothing_counts_as_away(clock: Clock) -> None:
    """Liveness answers all the same: a probe gives up sooner than a silent database."""
    activity = Activity(clock)

    async def needed() -> str | None:
        await asyncio.Event().wait()
        return None

    with activity.working():
        clock.now += STALLED_AFTER + 1
        async with asyncio.timeout(5):
            assert await Stalls({"claim": activity}, needed, clock).fault() is None


def test_work_in_hand_of_which_nothing_moves_stands_still_however_it_ends(clock: Clock) -> None:
    """Idle is healthy for ever; where failing is none, an end of any kind is movement."""
    activity = Activity(clock, fails=False)
    clock.now += 10 * STALLED_AFTER
    assert activity.still() == 0

    with activity.working():
        clock.now += STALLED_AFTER + 1
        assert activity.still() == STALLED_AFTER + 1
        activity.moved()
        assert activity.still() == 0
        fail(activity)
        clock.now += 1
        assert activity.still() == 1

    clock.now += STALLED_AFTER + 1
    assert activity.still() == 0


def test_work_stalls_after_the_limit_of_its_own(clock: Clock) -> None:
    """A sweep that asks Stripe for twenty customers may take minutes."""
    activities = {"sweep": Activity(clock, limit=600.0)}

    with activities["sweep"].working():
        clock.now += 600
        assert stalled(activities) is None
        clock.now += 1
        assert stalled(activities) == "sweep for 601 s"
