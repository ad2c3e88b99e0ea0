"""Turns: one at a time in each lane, and what does not fit is told when to come again."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from stripe_reporter.lanes import LONGEST_QUEUE, SOON, SOON_SECONDS, LaneFullError, Lanes


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


async def fill(lanes: Lanes, stack: AsyncExitStack) -> list[asyncio.Task[None]]:
    """Take the lane ``a`` and let others wait for it until it is full; return those."""
    await stack.enter_async_context(lanes.turn("a"))

    async def wait() -> None:
        async with lanes.turn("a"):
            pass

    waiting = [asyncio.create_task(wait()) for _ in range(LONGEST_QUEUE - 1)]
    await asyncio.sleep(0)
    return waiting


async def turned_away(lanes: Lanes) -> LaneFullError:
    """Ask for a turn in the full lane ``a``; return the refusal."""
    with pytest.raises(LaneFullError) as refusal:
        async with lanes.turn("a"):
            pass
    return refusal.value


async def test_a_full_lane_turns_away_and_leaves_others_alone() -> None:
    """Another customer's report gets its turn at once."""
    lanes = Lanes(Clock())
    async with AsyncExitStack() as stack:
        waiting = await fill(lanes, stack)

        assert (await turned_away(lanes)).soon
        async with asyncio.timeout(1), lanes.turn("b"):
            pass
    await asyncio.gather(*waiting)


async def test_one_at_a_time_goes_through_a_lane_in_order() -> None:
    """Those of one lane wait for each other; those of another lane for nobody."""
    lanes, done = Lanes(Clock()), list[str]()
    gate, passed = asyncio.Event(), asyncio.Event()

    async def go(lane: str, name: str) -> None:
        async with lanes.turn(lane):
            if name == "a1":
                await gate.wait()
            done.append(name)
            passed.set()

    async with asyncio.TaskGroup() as group:
        for lane, name in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3")]:
            group.create_task(go(lane, name))
        await passed.wait()
        assert done == ["b1"]
        gate.set()

    assert done == ["b1", "a1", "a2", "a3"]


async def test_the_excess_comes_later_than_what_will_soon_be_needed() -> None:
    """Enough come back soon to keep the lane busy; a backlog does not."""
    clock = Clock()
    lanes = Lanes(clock)
    async with AsyncExitStack() as stack:
        waiting = await fill(lanes, stack)

        first = [(await turned_away(lanes)).soon for _ in range(SOON + 2)]
        clock.now += SOON_SECONDS
        afterwards = (await turned_away(lanes)).soon

        assert first == [True] * SOON + [False] * 2
        assert afterwards
    await asyncio.gather(*waiting)


async def test_newcomer_waits_for_those_who_waited_before() -> None:
    """Also once the first of them is through: Stripe takes no two calls of one lane at once."""
    lanes, entered, inside = Lanes(Clock()), list[str](), asyncio.Event()
    leave = {name: asyncio.Event() for name in ("first", "second", "newcomer")}

    async def go(name: str) -> None:
        async with lanes.turn("a"):
            entered.append(name)
            if name == "second":
                inside.set()
            await leave[name].wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(go("first"))
        group.create_task(go("second"))
        await asyncio.sleep(0)
        leave["first"].set()
        await inside.wait()
        group.create_task(go("newcomer"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert entered == ["first", "second"]
        for each in leave.values():
            each.set()

    assert entered == ["first", "second", "newcomer"]
