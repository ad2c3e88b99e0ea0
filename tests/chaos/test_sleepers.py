"""Two processes of each service, and one that sleeps until its leases are over, and then wakes.

It is stopped by the system at the worst point (SIGSTOP: a paused container, a machine out of
memory). What it had begun is taken over by the other one, and it knows nothing of that.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest
import pytest_asyncio

from chaos.kill_points.steps import (
    REPORT_IS,
    assert_one_customer,
    end_attempt,
    end_leases,
    forwarded_unheard,
    identifier_of,
)
from chaos.scene import INGEST, PROVISIONER, REPORTER, Scene, created, open_scene, past_run
from metering_chaos.active_reporter import active_reporter
from metering_chaos.environment import in_thread
from rig.waiting import eventually

pytestmark = [
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]

NEVER_SENT = 'stripe_reporter_calls_total{answer="never_sent",call="meter_event"}'
TAKEN_OVER = "SELECT 1 FROM meter_calls WHERE identifier = $1 AND state = 'accepted'"
STORED = "SELECT 1 FROM user_profiles WHERE user_id = $1 AND state = 'provisioned'"
TAKEN_OVER_WITHIN = 90.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    """Return a running stack with two processes of each service."""
    async with open_scene(processes=2) as opened:
        yield opened


async def test_a_reporter_that_slept_between_claim_and_call_does_not_call(scene: Scene) -> None:
    """Its claim is committed as it falls asleep; the other one calls; awake, it lets it be."""
    user = await scene.customer()
    run = past_run(user)
    sleeper = await reporter_at_work(scene)
    async with AsyncExitStack() as sleep:
        async with scene.commits_held(REPORTER, "meter_calls", "INSERT"):
            await scene.publish(run)
            await scene.until_blocked(REPORTER, "COMMIT")
            await sleep.enter_async_context(scene.asleep(sleeper))
        identifier = await identifier_of(scene, user)
        before = await calls_of(scene, identifier)
        await scene.until(REPORTER, TAKEN_OVER, identifier, within=TAKEN_OVER_WITHIN)
        assert await reporter_at_work(scene) != sleeper

    await scene.until_metric(sleeper, NEVER_SENT, above=0)
    await scene.assert_billed_once(user, run)
    assert before == 0
    assert await calls_of(scene, identifier) == 1


async def test_a_reporter_that_slept_through_its_call_changes_nothing_when_it_wakes(
    scene: Scene,
) -> None:
    """Stripe has counted it and the answer waits unread; the other one asks again, as it may."""
    user = await scene.customer()
    run = past_run(user)
    sleeper = await reporter_at_work(scene)
    await scene.environment.stripe.add_fault("latency", when="after", seconds=3, method="POST")
    await scene.publish(run)
    await scene.until_counted(user)
    async with scene.asleep(sleeper):
        identifier = await identifier_of(scene, user)
        await scene.until(REPORTER, TAKEN_OVER, identifier, within=TAKEN_OVER_WITHIN)

    await scene.assert_billed_once(user, run)
    assert (await scene.environment.stripe.attempts())[identifier]["accepted"] == 1
    assert await calls_of(scene, identifier) == 2


async def test_an_ingest_that_slept_with_reports_leased_bills_nobody_twice(scene: Scene) -> None:
    """It had published and not marked; the other one publishes again; awake, it marks late."""
    user = await scene.customer()
    run = past_run(user)
    await in_thread(scene.environment.stack.services[f"{INGEST} 2"].stop)
    await forwarded_unheard(scene, user, run)
    async with scene.asleep(INGEST):
        await start(scene, f"{INGEST} 2")
        await end_leases(scene, user)
        await scene.until(INGEST, REPORT_IS, user, "reported", within=TAKEN_OVER_WITHIN)
    scene.proxy(INGEST, "broker").release()

    await scene.assert_billed_once(user, run)
    assert await calls_of(scene, await identifier_of(scene, user)) == 1


async def test_a_provisioner_that_slept_between_claim_and_call_makes_no_second_customer(
    scene: Scene,
) -> None:
    """The other one makes the customer; awake, the first one's call is answered with the same."""
    user = uuid4()
    run = past_run(user)
    await in_thread(scene.environment.stack.services[f"{PROVISIONER} 2"].stop)
    async with AsyncExitStack() as sleep:
        async with scene.commits_held(PROVISIONER, "user_profiles", "UPDATE"):
            await scene.publish(created(user), run)
            await scene.until_blocked(PROVISIONER, "COMMIT")
            await sleep.enter_async_context(scene.asleep(PROVISIONER))
        await end_attempt(scene, user)
        await start(scene, f"{PROVISIONER} 2")
        await scene.until(PROVISIONER, STORED, user, within=TAKEN_OVER_WITHIN)

    await assert_one_customer(scene, user)
    await scene.assert_billed_once(user, run)


async def reporter_at_work(scene: Scene) -> str:
    """Wait until the broker delivers reports to somebody, and return to whom."""
    name = await eventually(lambda: active_reporter(scene.environment), bool, within=30, every=0.2)
    assert name is not None
    return name


async def calls_of(scene: Scene, identifier: str) -> int:
    """Return how many calls Stripe has seen for a report."""
    seen = (await scene.environment.stripe.attempts()).get(identifier)
    return 0 if seen is None else seen["attempts"]


async def start(scene: Scene, process: str) -> None:
    """Start a process and wait until it is ready."""
    service = scene.environment.stack.services[process]
    await in_thread(service.launch)
    await in_thread(service.await_ready)
