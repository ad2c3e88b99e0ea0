"""Long outages of Stripe, the database and the broker, a hundred times shorter than real ones.

The retry tiers wait 50 ms, 0.3 s, 3 s and 18 s here: half a minute is longer than all of them, as
two hours are longer than the real ones. An outage makes no dead letter, and everything is
reported afterwards without an operator.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest

from chaos.controlled_stack import (
    CUSTOMER,
    INGEST,
    PROVISIONER,
    REPORTER,
    ControlledStack,
    created,
)
from metering_chaos.environment import in_thread
from nexus_contracts import Event, ToolExecuted
from support.events import past_run
from support.waiting import eventually

pytestmark = [
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]

OUTAGE_SECONDS = 30.0
USERS, RUNS = 5, 40
RECOVERED_WITHIN = 75.0
"""Seconds: the longest pause between two probes of an outage, and the longest tier."""

CUTS, BETWEEN_CUTS = 120, 0.02
"""Seconds between cuts, times 1 to 5, so that every phase of opening a connection is cut."""

Usage = dict[UUID, list[Event[ToolExecuted]]]


async def test_usage_survives_an_unreachable_stripe(stack: ControlledStack) -> None:
    """No server answers at Stripe's address: reports wait, and are sent once one does."""
    usage = await _usage(stack)
    async with _closed(stack, "stripe"):
        await _publish(stack, usage)
        await asyncio.sleep(OUTAGE_SECONDS)

    await _assert_all_billed(stack, usage)


async def test_usage_survives_failing_calls_to_stripe(stack: ControlledStack) -> None:
    """Stripe answers 503 to each call, also to some that took effect: nothing is counted twice."""
    usage = await _usage(stack)
    stripe = stack.environment.stripe
    for when in ("before", "after"):
        await stripe.add_fault("html_503", when=when, times=None, probability=0.5, seed=1)
    await stripe.add_fault("html_503", times=None)
    await _publish(stack, usage)
    await asyncio.sleep(OUTAGE_SECONDS)
    await stripe.remove_faults()

    await _assert_all_billed(stack, usage)


async def test_usage_survives_a_revoked_key(stack: ControlledStack) -> None:
    """Each call is refused: reports wait, and are sent once the key is valid again."""
    usage = await _usage(stack)
    stripe, key = stack.environment.stripe, stack.environment.stack.stripe_key
    await stripe.set_key(key, "revoked")
    await _publish(stack, usage)
    await asyncio.sleep(OUTAGE_SECONDS)
    await stripe.set_key(key, "valid")

    await _assert_all_billed(stack, usage)


async def test_usage_survives_an_unreachable_database(stack: ControlledStack) -> None:
    """No service reaches its database: messages wait in their queues, and no budget is spent."""
    usage = await _usage(stack)
    async with _closed(stack, ">database"):
        await _publish(stack, usage)
        await asyncio.sleep(OUTAGE_SECONDS)

    await _assert_all_billed(stack, usage)


async def test_usage_survives_a_killed_broker(stack: ControlledStack) -> None:
    """The broker is killed with messages in its queues and restarted after the outage."""
    usage = await _usage(stack)
    await _publish(stack, usage)
    broker = stack.environment.stack.broker
    await in_thread(broker.kill)
    await asyncio.sleep(OUTAGE_SECONDS)
    await in_thread(broker.restart)

    await _assert_all_billed(stack, usage)


async def test_silent_connections_are_detected_and_replaced(stack: ControlledStack) -> None:
    """All connections stay open and carry nothing, as behind a firewall that dropped its state."""
    usage = await _usage(stack)
    for proxy in stack.environment.proxies.values():
        proxy.blackhole()
    new_user = uuid4()
    usage[new_user] = [past_run(new_user)]
    await stack.publish(created(new_user))
    await _publish(stack, usage)

    await stack.until(INGEST, CUSTOMER, new_user, within=RECOVERED_WITHIN)
    await _assert_all_billed(stack, usage)


@pytest.mark.parametrize("service", [INGEST, REPORTER, PROVISIONER])
async def test_service_starts_while_its_connections_are_cut(
    stack: ControlledStack, service: str
) -> None:
    """Its connections are cut again and again as it opens them: it retries until they stand."""
    process = stack.environment.stack.services[service]
    await in_thread(process.stop)
    await in_thread(process.launch)
    for cut in range(CUTS):
        await asyncio.sleep(BETWEEN_CUTS * (1 + cut % 5))
        for part in ("broker", "database"):
            stack.proxy(service, part).reset()

    await in_thread(process.await_ready)


@asynccontextmanager
async def _closed(stack: ControlledStack, ending: str) -> AsyncIterator[None]:
    proxies = [proxy for name, proxy in stack.environment.proxies.items() if name.endswith(ending)]
    for proxy in proxies:
        await proxy.close()
    try:
        yield
    finally:
        for proxy in proxies:
            await proxy.open()


async def _usage(stack: ControlledStack) -> Usage:
    users = [await stack.customer() for _ in range(USERS)]
    return {user: [past_run(user) for _ in range(RUNS)] for user in users}


async def _publish(stack: ControlledStack, usage: Usage) -> None:
    await stack.publish(*(run for runs in usage.values() for run in runs))


async def _assert_all_billed(stack: ControlledStack, usage: Usage) -> None:
    for user, runs in usage.items():
        await stack.assert_billed_once(user, *runs, within=RECOVERED_WITHIN)
    assert await eventually(stack.letters, lambda bodies: not bodies, within=5) == []
