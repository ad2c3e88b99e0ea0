"""The limits on calls: one at a time for a customer and meter, and so many a second."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripe_reporter.limits import (
    BURST_SECONDS,
    MAX_IN_HAND,
    MAX_SOON,
    RECOVERY_SECONDS,
    SOON_SECONDS,
    CustomerBusyError,
    CustomerLimit,
    TokenBucket,
)


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


async def fill(limit: CustomerLimit, stack: AsyncExitStack) -> list[asyncio.Task[None]]:
    """Hold the slot of ``a`` and let as many wait for it as may; return those."""
    await stack.enter_async_context(limit.slot("a"))

    async def wait() -> None:
        async with limit.slot("a"):
            pass

    waiting = [asyncio.create_task(wait()) for _ in range(MAX_IN_HAND - 1)]
    await asyncio.sleep(0)
    return waiting


async def refused(limit: CustomerLimit) -> CustomerBusyError:
    """Ask for the slot of ``a``, which is busy; return the refusal."""
    with pytest.raises(CustomerBusyError) as refusal:
        async with limit.slot("a"):
            pass
    return refusal.value


async def test_busy_customer_is_refused_and_others_are_not() -> None:
    """Another customer's report gets its slot at once."""
    limit = CustomerLimit(Clock())
    async with AsyncExitStack() as stack:
        waiting = await fill(limit, stack)

        assert (await refused(limit)).soon
        async with asyncio.timeout(1), limit.slot("b"):
            pass
    await asyncio.gather(*waiting)


async def test_calls_of_one_customer_follow_each_other_in_order() -> None:
    """They wait for each other; those of another customer do not wait for them."""
    limit, done = CustomerLimit(Clock()), list[str]()
    go_on, passed = asyncio.Event(), asyncio.Event()

    async def call(customer: str, name: str) -> None:
        async with limit.slot(customer):
            if name == "a1":
                await go_on.wait()
            done.append(name)
            passed.set()

    async with asyncio.TaskGroup() as group:
        for customer, name in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3")]:
            group.create_task(call(customer, name))
        await passed.wait()
        assert done == ["b1"]
        go_on.set()

    assert done == ["b1", "a1", "a2", "a3"]


async def test_reports_beyond_what_is_needed_soon_come_later() -> None:
    """Enough come back soon to keep the customer's calls going; a backlog does not."""
    clock = Clock()
    limit = CustomerLimit(clock)
    async with AsyncExitStack() as stack:
        waiting = await fill(limit, stack)

        first = [(await refused(limit)).soon for _ in range(MAX_SOON + 2)]
        clock.now += SOON_SECONDS
        afterwards = (await refused(limit)).soon

        assert first == [True] * MAX_SOON + [False] * 2
        assert afterwards
    await asyncio.gather(*waiting)


async def test_newcomer_waits_for_those_who_waited_before() -> None:
    """Also once the first of them is through: Stripe takes no two calls of a customer at once."""
    limit, entered, inside = CustomerLimit(Clock()), list[str](), asyncio.Event()
    leave = {name: asyncio.Event() for name in ("first", "second", "newcomer")}

    async def call(name: str) -> None:
        async with limit.slot("a"):
            entered.append(name)
            if name == "second":
                inside.set()
            await leave[name].wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(call("first"))
        group.create_task(call("second"))
        await asyncio.sleep(0)
        leave["first"].set()
        await inside.wait()
        group.create_task(call("newcomer"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert entered == ["first", "second"]
        for each in leave.values():
            each.set()

    assert entered == ["first", "second", "newcomer"]


@given(
    st.floats(1.0, 1000.0),
    st.lists(st.floats(0.0, 2.0), min_size=1, max_size=40),
    st.lists(st.booleans(), min_size=40, max_size=40),
)
def test_rate_never_exceeds_the_ceiling(rate: float, pauses: list[float], slow: list[bool]) -> None:
    """In any stretch of time there are at most rate x (stretch + burst) + 1 calls."""
    now, bucket, calls = 0.0, TokenBucket.full(rate, 0.0), []
    for pause, slowed in zip(pauses, slow, strict=False):
        now += pause
        bucket = bucket.slowed_down(now) if slowed else bucket
        bucket, wait = bucket.take(now)
        now += wait
        calls.append(now)

    for first, start in enumerate(calls):
        made = range(1, len(calls) - first + 1)
        for count, end in zip(made, calls[first:], strict=True):
            assert count <= rate * (end - start + BURST_SECONDS) + 1 + 1e-6


def test_a_429_halves_the_rate_which_recovers_within_a_minute() -> None:
    """It comes back slowly, not at once into the next 429."""
    bucket = TokenBucket.full(100.0, 0.0).slowed_down(10.0)

    assert bucket.rate(10.0) == 50.0
    assert 50.0 < bucket.rate(11.0) < 55.0
    assert bucket.rate(10.0 + RECOVERY_SECONDS) == 100.0


def test_429s_at_one_time_halve_the_rate_once() -> None:
    """Calls under way together are refused together."""
    bucket = TokenBucket.full(100.0, 0.0)
    for _ in range(20):
        bucket = bucket.slowed_down(10.0)

    assert bucket.rate(10.0) == 50.0


@given(st.lists(st.floats(1.0, 5.0), max_size=100))
def test_rate_never_becomes_zero(pauses: list[float]) -> None:
    """However many 429s, one call a second is left."""
    now, bucket = 0.0, TokenBucket.full(100.0, 0.0)
    for pause in pauses:
        now += pause
        bucket = bucket.slowed_down(now)

    assert bucket.rate(now) >= 1.0
