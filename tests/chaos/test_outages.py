"""Long absences of Stripe, the database and the broker, in a time a hundred times shorter.

The retry tiers wait 50 ms, 0.3 s, 3 s and 18 s here: half a minute is longer than all of them, as
two hours are longer than the real ones. An outage costs nobody a dead letter, and all is reported
afterwards without anybody's help.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest

from chaos.scene import CUSTOMER, INGEST, PROVISIONER, REPORTER, Scene, created, past_run
from metering_chaos.environment import in_thread
from nexus_contracts import Event, ToolExecuted
from rig.waiting import eventually

pytestmark = [
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]

AWAY = 30.0
USERS, RUNS = 5, 40
# The longest pause between two looks whether an outage is over, and the longest tier.
RECOVERED_WITHIN = 75.0

# Irregular, so that each point of the opening is hit by one or another.
CUTS, BETWEEN_CUTS = 120, 0.02

Usage = dict[UUID, list[Event[ToolExecuted]]]


async def test_stripe_may_be_unreachable_for_long(scene: Scene) -> None:
    """Nobody answers at Stripe's address: reports wait, and are sent when somebody does."""
    usage = await _usage(scene)
    async with _closed(scene, "stripe"):
        await _publish(scene, usage)
        await asyncio.sleep(AWAY)

    await _assert_all_billed(scene, usage)


async def test_stripe_may_fail_for_long(scene: Scene) -> None:
    """Stripe answers 503 to each call, some of which took effect: nothing is counted twice."""
    usage = await _usage(scene)
    stripe = scene.environment.stripe
    for when in ("before", "after"):
        await stripe.add_fault("html_503", when=when, times=None, probability=0.5, seed=1)
    await stripe.add_fault("html_503", times=None)
    await _publish(scene, usage)
    await asyncio.sleep(AWAY)
    await stripe.remove_faults()

    await _assert_all_billed(scene, usage)


async def test_stripes_key_may_be_invalid_for_long(scene: Scene) -> None:
    """Each call is refused: reports wait, and are sent when the key is good again."""
    usage = await _usage(scene)
    stripe, key = scene.environment.stripe, scene.environment.stack.stripe_key
    await stripe.set_key(key, "revoked")
    await _publish(scene, usage)
    await asyncio.sleep(AWAY)
    await stripe.set_key(key, "valid")

    await _assert_all_billed(scene, usage)


async def test_the_database_may_be_away_for_long(scene: Scene) -> None:
    """No service reaches its database: messages wait in their queues, unblamed."""
    usage = await _usage(scene)
    async with _closed(scene, ">database"):
        await _publish(scene, usage)
        await asyncio.sleep(AWAY)

    await _assert_all_billed(scene, usage)


async def test_the_broker_may_be_away_for_long(scene: Scene) -> None:
    """The broker is killed with messages in all its queues, and comes back much later."""
    usage = await _usage(scene)
    await _publish(scene, usage)
    broker = scene.environment.stack.broker
    await in_thread(broker.kill)
    await asyncio.sleep(AWAY)
    await in_thread(broker.restart)

    await _assert_all_billed(scene, usage)


async def test_connections_that_fall_silent_are_noticed_and_made_anew(scene: Scene) -> None:
    """All connections stand and nothing passes, as behind a firewall that forgot them."""
    usage = await _usage(scene)
    for proxy in scene.environment.proxies.values():
        proxy.blackhole()
    newcomer = uuid4()
    usage[newcomer] = [past_run(newcomer)]
    await scene.publish(created(newcomer))
    await _publish(scene, usage)

    await scene.until(INGEST, CUSTOMER, newcomer, within=RECOVERED_WITHIN)
    await _assert_all_billed(scene, usage)


@pytest.mark.parametrize("service", [INGEST, REPORTER, PROVISIONER])
async def test_a_service_starts_however_often_its_connections_break(
    scene: Scene, service: str
) -> None:
    """Cut again and again while it opens them: it waits and tries again, and never gives up."""
    process = scene.environment.stack.services[service]
    await in_thread(process.stop)
    await in_thread(process.launch)
    for cut in range(CUTS):
        await asyncio.sleep(BETWEEN_CUTS * (1 + cut % 5))
        for part in ("broker", "database"):
            scene.proxy(service, part).reset()

    await in_thread(process.await_ready)


@asynccontextmanager
async def _closed(scene: Scene, ending: str) -> AsyncIterator[None]:
    proxies = [proxy for name, proxy in scene.environment.proxies.items() if name.endswith(ending)]
    for proxy in proxies:
        await proxy.close()
    try:
        yield
    finally:
        for proxy in proxies:
            await proxy.open()


async def _usage(scene: Scene) -> Usage:
    users = [await scene.customer() for _ in range(USERS)]
    return {user: [past_run(user) for _ in range(RUNS)] for user in users}


async def _publish(scene: Scene, usage: Usage) -> None:
    await scene.publish(*(run for runs in usage.values() for run in runs))


async def _assert_all_billed(scene: Scene, usage: Usage) -> None:
    for user, runs in usage.items():
        await scene.assert_billed_once(user, *runs, within=RECOVERED_WITHIN)
    assert await eventually(scene.letters, lambda bodies: not bodies, within=5) == []
