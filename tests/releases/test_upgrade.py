"""From the previous release to this code without a pause in publishing: nothing lost or doubled.

The order is the documented one: topology, migrations, services. The previous release runs before
the migrations: one that is started after them may refuse a database newer than itself, and one
that runs may call itself unready, so its readiness is not asked after them.
"""

import asyncio
import signal
from uuid import UUID, uuid4

import pytest

from nexus_messaging.topology import UNROUTABLE, metering_topology
from releases.upgrade import Upgrade
from rig.events import user_created
from rig.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

REPORTED = """
SELECT coalesce(sum(event_count) FILTER (WHERE state = 'reported'), 0)::int FROM usage_reports
"""
EVENTS = "SELECT count(*)::int FROM usage_events"


async def number(upgrade: Upgrade, query: str) -> int:
    """Ask usage-ingest's database for a number."""
    [(found,)] = await upgrade.platform.rows("usage_ingest", query)
    return int(str(found))


async def grown(upgrade: Upgrade, query: str, by: int) -> None:
    """Wait until the number that ``query`` asks for has grown."""
    before = await number(upgrade, query)
    await eventually(lambda: number(upgrade, query), lambda now: now >= before + by, within=120)


async def with_users(upgrade: Upgrade) -> list[UUID]:
    """Publish users, and return them."""
    users = [uuid4() for _ in range(3)]
    addresses = [f"user{each}@example.com" for each in range(len(users))]
    created = [user_created(user, address) for user, address in zip(users, addresses, strict=True)]
    await upgrade.vhost.publish(*created)
    return users


async def all_counted_once(upgrade: Upgrade) -> None:
    """Wait until every published run is reported, then compare with Stripe and look for losses."""
    await eventually(
        lambda: number(upgrade, REPORTED), lambda now: now >= upgrade.published, within=180
    )
    assert await number(upgrade, REPORTED) == upgrade.published
    assert await number(upgrade, EVENTS) == upgrade.published
    async with upgrade.platform.stripe() as stripe:
        assert sum(row["value"] for row in await stripe.sums()) == upgrade.published
    for queue in metering_topology().queues:
        if queue.name.endswith(".dlq") or queue.name == UNROUTABLE:
            assert await upgrade.vhost.depth(queue.name) == 0


async def test_the_previous_release_works_on_under_this_topology_and_schema_beside_this_code(
    upgrade: Upgrade,
) -> None:
    """A rolling upgrade: the old alone on what is new, both, and at last the new one alone."""
    await asyncio.to_thread(upgrade.start_old)
    users = await with_users(upgrade)
    async with upgrade.publishing(users):
        await grown(upgrade, REPORTED, 200)
        await upgrade.move_on()
        await grown(upgrade, EVENTS, 400)
        await grown(upgrade, REPORTED, 400)
        users.append(*(await with_users(upgrade))[:1])

        await asyncio.to_thread(upgrade.platform.start)
        await grown(upgrade, REPORTED, 400)

        for service in upgrade.old.values():
            service.terminate()
        for service in upgrade.old.values():
            assert await asyncio.to_thread(service.wait_for_exit, 30)
        await grown(upgrade, REPORTED, 400)

    await all_counted_once(upgrade)


@pytest.mark.parametrize("number_", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
async def test_this_code_finishes_what_the_previous_release_left_in_mid_stream(
    upgrade: Upgrade, number_: signal.Signals
) -> None:
    """Stopped or killed at work: its messages, leases, claims and calls are taken over."""
    await asyncio.to_thread(upgrade.start_old)
    users = await with_users(upgrade)
    async with upgrade.publishing(users):
        await grown(upgrade, REPORTED, 200)
        await upgrade.move_on()
        for service in upgrade.old.values():
            if number_ == signal.SIGTERM:
                service.terminate()
            else:
                service.kill()
        for service in upgrade.old.values():
            assert await asyncio.to_thread(service.wait_for_exit, 30)

        await asyncio.to_thread(upgrade.platform.start)
        await grown(upgrade, REPORTED, 400)

    await all_counted_once(upgrade)
