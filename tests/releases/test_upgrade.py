"""Upgrades from the previous release while runs are published: each run is counted once.

The order is the documented one: topology, migrations, services. The previous release runs before
the migrations: one that is started after them may refuse a newer database, and one that runs may
become unready, so that its readiness is not checked after them.
"""

import asyncio
import signal
from datetime import timedelta
from functools import partial
from uuid import UUID, uuid4

import pytest

from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.storage.writer import ProfileWriter
from nexus_contracts import Event, EventData, SubscriptionChanged, UserAssigned, UserCreatedV2
from nexus_messaging.clock import utc_now
from nexus_messaging.description import metering_topology
from nexus_messaging.topology import (
    CUSTOMER_PROVISIONED_QUEUE,
    INTERNAL,
    SUBSCRIPTION_CHANGED_QUEUE,
    TOOL_EXECUTED_QUEUE,
    UNROUTABLE,
    USER_ASSIGNED_QUEUE,
    dead_letter_queue,
)
from releases.upgrade import Upgrade
from support.billing import assert_counted_once
from support.databases import opened
from support.events import report, user_created
from support.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

REPORTED = """
SELECT coalesce(sum(event_count) FILTER (WHERE state = 'reported'), 0)::int FROM usage_reports
"""
EVENTS = "SELECT count(*)::int FROM usage_events"
ASSIGNED = "SELECT count(*)::int FROM account_assignments"
SUBSCRIBED = "SELECT count(*)::int FROM account_subscriptions"


def event(data: EventData) -> Event[EventData]:
    """Return the event that customer-provisioner publishes of ``data``."""
    return Event.of(data, source="customer-provisioner", id=uuid4(), time=utc_now())


def assigned(account: UUID) -> Event[EventData]:
    """Return the event that an account pays for a user from now on."""
    return event(UserAssigned(user_id=uuid4(), account_id=account, since=utc_now(), revision=1))


def subscribed(account: UUID, customer: str) -> Event[EventData]:
    """Return the event that an account has a subscription."""
    return event(
        SubscriptionChanged(
            subscription_id="sub_new",
            account_id=account,
            stripe_customer_id=customer,
            revision=1,
            plan_type="pro",
            status="active",
            items=[],
            plan_since=utc_now(),
            as_of=utc_now(),
        )
    )


async def number(upgrade: Upgrade, query: str) -> int:
    """Return the number that a query selects in usage-ingest's database."""
    return await upgrade.platform.number("usage_ingest", query)


async def until_grown(upgrade: Upgrade, query: str, by: int) -> None:
    """Wait until the number that ``query`` selects has grown by ``by``."""
    before = await number(upgrade, query)
    await eventually(lambda: number(upgrade, query), lambda now: now >= before + by, within=120)


async def publish_users(upgrade: Upgrade) -> list[UUID]:
    """Publish users, and return them."""
    users = [uuid4() for _ in range(3)]
    addresses = [f"user{each}@example.com" for each in range(len(users))]
    created = [user_created(user, address) for user, address in zip(users, addresses, strict=True)]
    await upgrade.vhost.publish(*created)
    return users


async def assert_all_counted_once(upgrade: Upgrade) -> None:
    """Wait until every published run is reported; Stripe agrees, and no message is dead."""
    await eventually(
        lambda: number(upgrade, REPORTED), lambda now: now >= upgrade.published, within=180
    )
    assert await number(upgrade, EVENTS) == upgrade.published
    await assert_counted_once(upgrade.platform, upgrade.published)
    for queue in metering_topology().queues:
        if queue.name.endswith(".dlq") or queue.name == UNROUTABLE:
            assert await upgrade.vhost.depth(queue.name) == 0


async def test_rolling_upgrade_counts_every_run_once(upgrade: Upgrade) -> None:
    """The previous release works on the new topology and schema, alone, then beside this code."""
    await asyncio.to_thread(upgrade.start_old)
    users = await publish_users(upgrade)
    async with upgrade.publishing(users):
        await until_grown(upgrade, REPORTED, 200)
        await upgrade.upgrade_servers()
        await until_grown(upgrade, EVENTS, 400)
        await until_grown(upgrade, REPORTED, 400)
        users.append(*(await publish_users(upgrade))[:1])

        await asyncio.to_thread(upgrade.platform.start)
        await upgrade.platform.run_command("usage_ingest", "totals", "--rebuild")
        await until_grown(upgrade, REPORTED, 400)

        for service in upgrade.old.values():
            service.terminate()
        for service in upgrade.old.values():
            assert await asyncio.to_thread(service.wait_for_exit, 30)
        await until_grown(upgrade, REPORTED, 400)

    await assert_all_counted_once(upgrade)
    await upgrade.platform.run_command("usage_ingest", "totals", "--verify")


async def test_previous_release_loses_no_event_that_is_new(upgrade: Upgrade) -> None:
    """Events of accounts wait, or are dead-lettered unchanged where somebody moved them to it.

    A report of late readings it sends to Stripe as any other.
    """
    await asyncio.to_thread(upgrade.start_old)
    await upgrade.upgrade_servers()
    vhost, account = upgrade.vhost, uuid4()
    [customer] = await upgrade.platform.customers(1)
    waiting, moved = assigned(account), assigned(account)
    changed = subscribed(account, customer)
    await vhost.publish(moved, changed, exchange=INTERNAL)
    await vhost.move(USER_ASSIGNED_QUEUE, TOOL_EXECUTED_QUEUE)
    await vhost.move(SUBSCRIPTION_CHANGED_QUEUE, CUSTOMER_PROVISIONED_QUEUE)
    await vhost.publish(report(customer, late=True), exchange=INTERNAL)

    async with upgrade.platform.stripe() as stripe:
        await eventually(stripe.sums, lambda sums: [int(each["value"]) for each in sums] == [1])
    for queue, sent in ((TOOL_EXECUTED_QUEUE, moved), (CUSTOMER_PROVISIONED_QUEUE, changed)):
        letters = await eventually(partial(vhost.dead_letters, queue), bool)
        assert [letter.body for letter in letters] == [sent.body()]
    await vhost.publish(waiting, exchange=INTERNAL)

    for service in upgrade.old.values():
        service.terminate()
    await asyncio.to_thread(upgrade.platform.start, "usage-ingest")
    await vhost.move(dead_letter_queue(TOOL_EXECUTED_QUEUE), USER_ASSIGNED_QUEUE)
    await vhost.move(dead_letter_queue(CUSTOMER_PROVISIONED_QUEUE), SUBSCRIPTION_CHANGED_QUEUE)

    await eventually(lambda: number(upgrade, ASSIGNED), lambda users: users == 2)
    await eventually(lambda: number(upgrade, SUBSCRIBED), lambda found: found == 1)


async def test_previous_release_leaves_users_to_be_linked_to_this_one(upgrade: Upgrade) -> None:
    """It would create a second customer for them; other users it serves as before."""
    await asyncio.to_thread(upgrade.start_old)
    await upgrade.upgrade_servers()
    [own] = await upgrade.platform.customers(1)
    linked = UserCreatedV2(user_id=uuid4(), stripe_customer_id=own)
    plain = UserCreatedV2(user_id=uuid4(), email="plain@example.com")
    async with opened(upgrade.platform.databases["customer_provisioner"]) as database:
        for user in (linked, plain):
            await ProfileWriter(database).keep(user, utc_now() - timedelta(hours=1))

        async def customer_of(user: UserCreatedV2) -> str | None:
            profile = await ProfileReader(database).find(user.user_id)
            return profile.stripe_customer_id if profile else None

        await eventually(lambda: customer_of(plain), lambda found: found is not None, within=60)
        assert await customer_of(linked) is None
        await asyncio.to_thread(upgrade.platform.start, "customer-provisioner")
        await eventually(lambda: customer_of(linked), lambda found: found == own, within=60)

    async with upgrade.platform.stripe() as stripe:
        requests = await stripe.requests(limit=1000)
    made = [
        each for each in requests if (each["method"], each["path"]) == ("POST", "/v1/customers")
    ]
    assert len(made) == 2


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
async def test_upgrade_finishes_the_previous_releases_work(
    upgrade: Upgrade, ended_by: signal.Signals
) -> None:
    """Stopped or killed at work, its messages, leases, claims and calls are taken over."""
    await asyncio.to_thread(upgrade.start_old)
    users = await publish_users(upgrade)
    async with upgrade.publishing(users):
        await until_grown(upgrade, REPORTED, 200)
        await upgrade.upgrade_servers()
        for service in upgrade.old.values():
            if ended_by == signal.SIGTERM:
                service.terminate()
            else:
                service.kill()
        for service in upgrade.old.values():
            assert await asyncio.to_thread(service.wait_for_exit, 30)

        await asyncio.to_thread(upgrade.platform.start)
        await until_grown(upgrade, REPORTED, 400)

    await assert_all_counted_once(upgrade)
