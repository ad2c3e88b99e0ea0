"""Two processes of each service: one is suspended past the end of its leases, then continued.

It is suspended by SIGSTOP at the worst point (as a paused container is, or a machine out of
memory). The other process takes over its work, which it cannot know.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest
import pytest_asyncio

from chaos.controlled_stack import (
    INGEST,
    PROVISIONER,
    REPORTER,
    ControlledStack,
    controlled_stack,
    created,
)
from chaos.kill_points.points import REPORTED, STORED, Usage, forward_without_confirm
from metering_chaos.active_reporter import active_reporter
from support.events import past_run
from support.waiting import eventually

pytestmark = [
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]

NEVER_SENT = 'stripe_reporter_calls_total{answer="never_sent",call="meter_event"}'
TAKEN_OVER = "SELECT 1 FROM meter_calls WHERE identifier = $1 AND state = 'accepted'"
TAKEN_OVER_WITHIN = 90.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack() -> AsyncIterator[ControlledStack]:
    """Return a running stack with two processes of each service."""
    async with controlled_stack(processes=2) as running:
        yield running


async def test_reporter_suspended_before_its_call_sends_nothing(stack: ControlledStack) -> None:
    """Suspended as its claim commits; the other process calls, and it does not call any more."""
    usage = await Usage.of_customer(stack)
    active = await until_active_reporter(stack)
    async with AsyncExitStack() as suspension:
        async with stack.commits_held(REPORTER, "meter_calls", "INSERT"):
            await stack.publish(usage.run)
            await stack.until_blocked(REPORTER, "COMMIT")
            await suspension.enter_async_context(stack.suspended(active))
        identifier = await usage.identifier()
        before = await stack.calls(identifier)
        await stack.until(REPORTER, TAKEN_OVER, identifier, within=TAKEN_OVER_WITHIN)
        assert await until_active_reporter(stack) != active

    await stack.until_metric(active, NEVER_SENT, above=0)
    await usage.assert_billed_once()
    assert before == 0
    assert await stack.calls(identifier) == 1


async def test_reporter_suspended_in_its_call_changes_nothing(stack: ControlledStack) -> None:
    """Stripe has counted it and the answer is unread; the other process calls a second time."""
    usage = await Usage.of_customer(stack)
    active = await until_active_reporter(stack)
    await stack.environment.stripe.add_fault("latency", when="after", seconds=3, method="POST")
    await stack.publish(usage.run)
    await stack.until_counted(usage.user)
    async with stack.suspended(active):
        identifier = await usage.identifier()
        await stack.until(REPORTER, TAKEN_OVER, identifier, within=TAKEN_OVER_WITHIN)

    await usage.assert_billed_once()
    assert (await stack.environment.stripe.attempts())[identifier]["accepted"] == 1
    assert await stack.calls(identifier) == 2


async def test_ingest_suspended_with_leases_bills_nothing_twice(stack: ControlledStack) -> None:
    """It published without the mark; the other process publishes again, and its mark is late."""
    usage = await Usage.of_customer(stack)
    await stack.stop(f"{INGEST} 2")
    await forward_without_confirm(usage)
    async with stack.suspended(INGEST):
        await stack.start(f"{INGEST} 2")
        await usage.end_leases()
        await stack.until(INGEST, REPORTED, usage.user, within=TAKEN_OVER_WITHIN)
    stack.proxy(INGEST, "broker").release()

    await usage.assert_billed_once()
    assert await stack.calls(await usage.identifier()) == 1


async def test_provisioner_suspended_before_its_call_adds_no_customer(
    stack: ControlledStack,
) -> None:
    """The other process creates the customer; the late call is answered with the same one."""
    user = uuid4()
    usage = Usage(stack, user, past_run(user))
    await stack.stop(f"{PROVISIONER} 2")
    async with AsyncExitStack() as suspension:
        async with stack.commits_held(PROVISIONER, "user_profiles", "UPDATE"):
            await stack.publish(created(user), usage.run)
            await stack.until_blocked(PROVISIONER, "COMMIT")
            await suspension.enter_async_context(stack.suspended(PROVISIONER))
        await usage.end_attempt()
        await stack.start(f"{PROVISIONER} 2")
        await stack.until(PROVISIONER, STORED, user, within=TAKEN_OVER_WITHIN)

    await usage.assert_one_customer()
    await usage.assert_billed_once()


async def until_active_reporter(stack: ControlledStack) -> str:
    """Wait until the broker delivers reports to a process, and return its name."""
    name = await eventually(lambda: active_reporter(stack.environment), bool, within=30, every=0.2)
    assert name is not None
    return name
