"""What Stripe has of a subscription is stored, in whatever order one hears of its changes."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import uuid4

import pytest

from customer_provisioner.announcing import announced_subscriptions
from customer_provisioner.refreshing import Refresher
from customer_provisioner.relay import BATCH_SIZE, Relay, publish_again
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.storage.subscriptions import SubscriptionStore
from customer_provisioner.storage.sweeps import SweepPage, SweepStore
from customer_provisioner.subscription_sweep import SubscriptionSweep
from nexus_contracts import SubscriptionChanged, UserCreatedV2, read_event
from nexus_database import Database
from nexus_messaging.publisher import Publisher
from nexus_messaging.topology import SUBSCRIPTION_CHANGED_QUEUE
from nexus_service.console import steps
from support.vhost import Vhost

from .conftest import Bench, profile_of, steps_of, user
from .subscribing import (
    BEGAN,
    PLANS,
    Pause,
    PausingStore,
    ScriptedApi,
    StripeSide,
    no_pause,
    subscription,
    with_seats,
)

SUB = "sub_1"
SWEEP_STEPS = 24
"""Of a sweep of two pages, of which it can be interrupted."""
PAUSES = 8
"""Of a refresh that nothing overtakes: before and after each read, fetch and write, and two spare
for a second round."""


def refresher(bench: Bench, store: SubscriptionStore, api: ScriptedApi) -> Refresher:
    """Return what a process has."""
    return Refresher(
        store,
        bench.profiles,
        bench.provisioner._stripe,
        api,
        PLANS,
        bench.metrics,
        wake_relay=lambda: None,
        now=bench.clock,
    )


@pytest.fixture
def side() -> StripeSide:
    """Return a Stripe without subscriptions."""
    return StripeSide()


@pytest.fixture
def store(database: Database) -> PausingStore:
    """Return the stored subscriptions."""
    return PausingStore(database)


async def seats_of(store: SubscriptionStore) -> int | None:
    """Return the stored seats of the subscription."""
    return (await store.find([SUB]))[SUB].snapshot.seats


async def customer_of(bench: Bench) -> tuple[object, str]:
    """Return a user's id and customer."""
    data = user()
    await bench.keep(data)
    return data.user_id, await bench.provisioner.provision(data.user_id)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("pause", range(PAUSES))
async def test_an_old_fetch_never_replaces_a_newer_one(
    bench: Bench, database: Database, side: StripeSide, *, known: bool, pause: int
) -> None:
    """At any step of one process the subscription changes, and another fetches and stores it."""
    first = subscription(SUB, "cus_1", seats=1)
    side.put(first)
    undisturbed = refresher(bench, SubscriptionStore(database), ScriptedApi(side))
    if known:
        await undisturbed.refresh(SUB)
    passed = -1

    async def interrupt() -> None:
        nonlocal passed
        passed += 1
        if passed == pause:
            side.put(with_seats(first, 2))
            await undisturbed.refresh(SUB)

    slow = PausingStore(database)
    slow.pause = interrupt

    await refresher(bench, slow, ScriptedApi(side, interrupt)).refresh(SUB)

    if passed >= pause:
        assert await seats_of(slow) == 2


async def test_answers_in_reverse_order_leave_the_last_change(
    bench: Bench, store: PausingStore, side: StripeSide
) -> None:
    """Each process fetches one change, and its answer waits until that to the next is stored."""
    side.put(subscription(SUB, "cus_1", seats=0))
    await refresher(bench, store, ScriptedApi(side)).refresh(SUB)
    read, stored = ([asyncio.Event() for _ in range(5)] for _ in range(2))

    async def hear(number: int) -> None:
        pauses = iter(range(100))

        async def pause() -> None:
            if next(pauses) == 1:  # Stripe has read it, and the answer is on its way
                read[number].set()
                if number + 1 < len(stored):
                    await stored[number + 1].wait()

        await refresher(bench, store, ScriptedApi(side, pause)).refresh(SUB)
        stored[number].set()

    hearing = []
    for number in range(len(read)):
        side.put(subscription(SUB, "cus_1", seats=number + 1))
        hearing.append(asyncio.create_task(hear(number)))
        await read[number].wait()
    await asyncio.gather(*hearing)

    assert await seats_of(store) == len(read)


async def test_a_change_is_announced_until_it_is_confirmed(
    bench: Bench, store: PausingStore, side: StripeSide, database: Database, vhost: Vhost
) -> None:
    """With its account, and once."""
    account_id, customer_id = await customer_of(bench)
    side.put(subscription(SUB, customer_id, seats=3))
    await refresher(bench, store, ScriptedApi(side)).refresh(SUB)
    publisher = await Publisher.connect(vhost.url("customer-provisioner"), name="test")
    relay = Relay(announced_subscriptions(database), publisher, bench.metrics, bench.clock)

    await relay.publish_unannounced()
    await relay.publish_unannounced()
    await publisher.close()

    (message,) = await vhost.peek(SUBSCRIPTION_CHANGED_QUEUE)
    data = read_event(message.body, [SubscriptionChanged]).data
    assert (data.account_id, data.stripe_customer_id, data.seats) == (account_id, customer_id, 3)
    assert (data.status, data.plan_since) == ("active", BEGAN)
    assert await store.unannounced(10) == []


async def test_what_cannot_be_announced_holds_up_no_other(
    bench: Bench, side: StripeSide, database: Database, vhost: Vhost
) -> None:
    """One that breaks a rule of its event is counted as left; what comes after it is announced."""
    _, customer_id = await customer_of(bench)
    good = subscription("sub_good", customer_id)
    side.put(replace(good, subscription_id="sub_bad", items=good.items * 1001), good)
    follow = refresher(bench, SubscriptionStore(database), ScriptedApi(side))
    for subscription_id in ("sub_bad", "sub_good"):
        await follow.refresh(subscription_id)
    publisher = await Publisher.connect(vhost.url("customer-provisioner"), name="test")
    relay = Relay(announced_subscriptions(database), publisher, bench.metrics, bench.clock)

    await relay.publish_unannounced()
    await publisher.close()

    assert await announced_ids(vhost) == ["sub_good"]
    assert left(bench) == 1


async def test_many_that_cannot_be_announced_hold_up_no_other(
    bench: Bench, side: StripeSide, database: Database, publisher: Publisher, vhost: Vhost
) -> None:
    """More than a round reads, all older than the one that can. Corrected, one is announced."""
    _, customer_id = await customer_of(bench)
    good = subscription("sub_good", customer_id)
    bad = [
        replace(good, subscription_id=f"sub_{n}", items=good.items * 1001)
        for n in range(BATCH_SIZE + 1)
    ]
    side.put(*bad, good)
    follow = refresher(bench, SubscriptionStore(database), ScriptedApi(side))
    for each in (*bad, good):
        await follow.refresh(each.subscription_id)
    relay = Relay(announced_subscriptions(database), publisher, bench.metrics, bench.clock)

    while await relay.publish_unannounced():
        pass

    assert await announced_ids(vhost) == ["sub_good"]
    assert left(bench) == len(bad)
    side.put(replace(good, subscription_id="sub_0"))
    await follow.refresh("sub_0")
    await relay.publish_unannounced()
    assert await announced_ids(vhost) == ["sub_good", "sub_0"]
    bench.advance(minutes=11)
    while await relay.publish_unannounced():
        pass
    assert left(bench) == len(bad) - 1


async def test_what_cannot_be_announced_again_is_told_and_holds_up_no_other(
    bench: Bench, side: StripeSide, database: Database, publisher: Publisher, vhost: Vhost
) -> None:
    """The command prints the rule that is broken."""
    _, customer_id = await customer_of(bench)
    good = subscription("sub_good", customer_id)
    side.put(replace(good, subscription_id="sub_bad", items=good.items * 1001), good)
    follow = refresher(bench, SubscriptionStore(database), ScriptedApi(side))
    for subscription_id in ("sub_bad", "sub_good"):
        await follow.refresh(subscription_id)

    with steps("announcements", stream=io.StringIO()) as progress:
        done = await publish_again(
            announced_subscriptions(database),
            since=BEGAN,
            publisher=publisher,
            per_second=1000,
            progress=progress,
        )

    assert await announced_ids(vhost) == ["sub_good"]
    assert (done.number, len(done.broken)) == (1, 1)
    assert "items: " in done.broken[0]


async def announced_ids(vhost: Vhost) -> list[str]:
    """Return the subscriptions that were announced, in order."""
    messages = await vhost.peek(SUBSCRIPTION_CHANGED_QUEUE)
    found = [read_event(each.body, [SubscriptionChanged]).data for each in messages]
    return [each.subscription_id for each in found]


def left(bench: Bench) -> float | None:
    """Return how many subscriptions the metric says were left."""
    labels = {"event": "subscription.changed"}
    return bench.registry.get_sample_value("customer_provisioner_announcements_left", labels)


@pytest.mark.parametrize("when", ["after", "at once"])
async def test_a_subscription_waits_for_its_account(
    bench: Bench, store: PausingStore, side: StripeSide, when: str
) -> None:
    """A webhook may overtake the storing of the customer, and either may see the other or not."""
    account = bench.stripe.account
    own = account.customers.create({"email": "ada@example.com"}, account.clock.now())
    linked = UserCreatedV2(user_id=uuid4(), stripe_customer_id=own["id"])
    side.put(subscription(SUB, own["id"]))
    process = refresher(bench, store, ScriptedApi(side))

    async def link() -> None:
        await bench.keep(linked)
        await bench.provisioner.provision(linked.user_id)

    if when == "after":
        await process.refresh(SUB)
        assert await store.unannounced(10) == []
        await link()
    else:
        await asyncio.gather(process.refresh(SUB), link())

    (found,) = await store.unannounced(10)
    assert found.account_id == linked.user_id


async def test_a_subscription_of_a_former_customer_stays_with_its_account(
    bench: Bench, store: PausingStore, side: StripeSide, database: Database
) -> None:
    """It ended with the customer, and its last change must still be announced."""
    data = user()
    await bench.keep(data)
    customer_id = await bench.provisioner.provision(data.user_id)
    bench.stripe.delete(customer_id)
    await bench.profiles.begin_generation(await profile_of(database, data), bench.clock())
    await bench.provisioner.provision(data.user_id)
    ended = replace(subscription(SUB, customer_id), status="canceled", ended_at=BEGAN)
    side.put(ended)

    await refresher(bench, store, ScriptedApi(side)).refresh(SUB)

    (found,) = await store.unannounced(10)
    assert (found.account_id, found.plan_since) == (data.user_id, BEGAN)


async def test_a_deleted_customer_is_said_and_its_subscriptions_end(
    bench: Bench, store: PausingStore, side: StripeSide, database: Database
) -> None:
    """Until the account has another one; a customer that exists is none of this."""
    data = user()
    await bench.keep(data)
    customer_id = await bench.provisioner.provision(data.user_id)
    base = subscription(SUB, customer_id)
    side.put(base)
    process = refresher(bench, store, ScriptedApi(side))
    await process.refresh(SUB)
    await process.refresh_customer(customer_id)
    assert (await ProfileReader(database).counts()).customer_deleted == 0

    bench.stripe.delete(customer_id)
    side.put(replace(base, status="canceled", ended_at=BEGAN + timedelta(days=1)))
    for _ in range(2):
        await process.refresh_customer(customer_id)

    assert (await ProfileReader(database).counts()).customer_deleted == 1
    assert (await steps_of(database, data)).count("customer_deleted") == 1
    assert (await store.find([SUB]))[SUB].snapshot.status == "canceled"
    await bench.profiles.begin_generation(await profile_of(database, data), bench.clock())
    await bench.provisioner.provision(data.user_id)
    assert (await ProfileReader(database).counts()).customer_deleted == 0


@dataclass
class Night:
    """The nightly sweep with its parts; ``on_the_way`` happens while it waits for webhooks."""

    sweep: SubscriptionSweep
    progress: SweepStore
    bench: Bench
    on_the_way: list[Callable[[], Awaitable[None]]]

    async def run(self, rounds: int = 10) -> None:
        """Run through a night's pages."""
        for _ in range(rounds):
            await self.sweep.sweep_page()
            self.bench.advance(minutes=2)

    async def lease(self) -> SweepPage:
        """Return the first page of the next sweep."""
        self.bench.advance(days=1)
        page = await self.progress.lease(self.bench.clock())
        assert page is not None
        return page

    def lost(self) -> float:
        """Return how many lost webhooks were counted."""
        value = self.bench.registry.get_sample_value("customer_provisioner_lost_webhooks_total")
        assert value is not None
        return value


@pytest.fixture
def night(bench: Bench, store: PausingStore, side: StripeSide, database: Database) -> Night:
    """Return the sweep of a process."""
    on_the_way: list[Callable[[], Awaitable[None]]] = []

    async def sleep(_seconds: float) -> None:
        for each in on_the_way:
            await each()

    api, progress = ScriptedApi(side), SweepStore(database)
    sweep = SubscriptionSweep(
        progress,
        store,
        api,
        refresher(bench, store, api),
        PLANS,
        bench.metrics,
        now=bench.clock,
        sleep=sleep,
    )
    return Night(sweep, progress, bench, on_the_way)


async def test_the_sweep_repairs_what_webhooks_lost(
    bench: Bench, store: PausingStore, side: StripeSide, night: Night
) -> None:
    """What was there before the first sweep is not counted; what changed since is."""
    _, customer_id = await customer_of(bench)
    base = [subscription(f"sub_{n}", customer_id) for n in range(5)]
    side.put(*base)
    await night.run()
    assert len(await store.find([each.subscription_id for each in base])) == 5
    assert night.lost() == 0

    side.put(with_seats(base[3], 9))
    side.put(subscription("sub_9", customer_id, started_at=bench.clock()))
    bench.advance(days=1)
    await night.run()

    found = await store.find(["sub_3", "sub_9"])
    assert found["sub_3"].snapshot.seats == 9
    assert found["sub_9"].snapshot.seats == 1
    assert night.lost() == 2


async def test_one_that_stripe_refuses_does_not_end_the_sweep(
    store: PausingStore, side: StripeSide, night: Night
) -> None:
    """It is passed over, and the pages after its own are swept, also at the end of the list."""
    side.put(*(subscription(f"sub_{n}", "cus_1") for n in range(6)))
    side.refused = {"sub_0"}

    await night.run()

    assert sorted(await store.find([f"sub_{n}" for n in range(6)])) == [
        f"sub_{n}" for n in range(1, 6)
    ]
    page = await night.lease()
    assert page.previous_at is not None


async def test_a_webhook_that_is_on_the_way_is_not_lost(
    bench: Bench, store: PausingStore, side: StripeSide, night: Night
) -> None:
    """It is stored by its message while the sweep waits."""
    base = subscription(SUB, "cus_1")
    side.put(base)
    await night.run()
    side.put(with_seats(base, 2))
    night.on_the_way.append(lambda: refresher(bench, store, ScriptedApi(side)).refresh(SUB))
    bench.advance(days=1)

    await night.run()

    assert night.lost() == 0
    assert await seats_of(store) == 2


async def test_the_sweep_announces_again_and_fetches_nothing_for_it(
    bench: Bench, store: PausingStore, side: StripeSide, night: Night
) -> None:
    """A consumer that lost what it had gets it within a day.

    And one that has later revisions, which a lost database had made: this one is higher.
    """
    _, customer_id = await customer_of(bench)
    side.put(*(subscription(f"sub_{n}", customer_id) for n in range(3)))
    await night.run()
    first = await store.unannounced(10)
    await store.mark_announced(first, bench.clock())
    assert await store.unannounced(10) == []
    calls = side.calls
    bench.advance(days=1)

    await night.run()

    again = await store.unannounced(10)
    content = [(each.subscription_id, each.snapshot, each.plan_since) for each in first]
    assert [(each.subscription_id, each.snapshot, each.plan_since) for each in again] == content
    assert [each.revision for each in again] > [each.revision for each in first]
    assert side.calls == calls


async def test_a_sweep_goes_on_where_it_was_stopped(
    bench: Bench, database: Database, side: StripeSide, store: PausingStore, night: Night
) -> None:
    """One page of a process that ended is not read again; two processes share one sweep."""
    side.put(*(subscription(f"sub_{n}", "cus_1") for n in range(6)))
    await night.sweep.sweep_page()
    assert len(await store.find([f"sub_{n}" for n in range(6)])) == 2
    assert await SweepStore(database).lease(bench.clock()) is None

    bench.advance(minutes=1)
    page = await SweepStore(database).lease(bench.clock())

    assert page is not None
    assert page.after_id == "sub_1"


async def test_a_page_that_another_process_took_over_changes_no_progress(
    bench: Bench, night: Night
) -> None:
    """Else what it ends late would begin a sweep in the middle, which would count as complete."""
    slow = await night.lease()
    bench.advance(minutes=11)
    page = await night.progress.lease(bench.clock())
    assert page == slow
    await night.progress.advance(page, "sub_1", bench.clock())
    last = await night.progress.lease(bench.clock())
    assert last is not None
    await night.progress.finish(last, bench.clock(), bench.clock())

    await night.progress.advance(slow, "sub_1", bench.clock())
    await night.progress.abandon(slow, bench.clock())
    await night.progress.finish(slow, bench.clock(), bench.clock())

    page = await night.lease()
    assert (page.after_id, page.previous_at) == (None, slow.started_at)


async def test_a_sweep_that_never_ends_is_as_old_as_the_first_attempt(
    bench: Bench, night: Night
) -> None:
    """As by a key without the right: the alert needs an age, also before the first sweep ended."""
    began = bench.clock()
    page = await night.lease()
    for _ in range(3):
        await night.progress.abandon(page, bench.clock())
        page = await night.lease()

    await night.sweep.sweep_page()

    swept = "customer_provisioner_subscriptions_swept_timestamp_seconds"
    value = bench.registry.get_sample_value(swept)
    assert value == pytest.approx((began + timedelta(days=1)).timestamp(), abs=60)


@pytest.mark.parametrize("step", range(SWEEP_STEPS))
async def test_a_sweep_that_is_interrupted_is_done_by_the_next_process(
    bench: Bench, database: Database, side: StripeSide, store: PausingStore, step: int
) -> None:
    """At any of its steps, among them a webhook's storing: nothing stays as it was."""
    base = [subscription(f"sub_{n}", "cus_1") for n in range(4)]
    side.put(*base)
    for each in base:
        await refresher(bench, SubscriptionStore(database), ScriptedApi(side)).refresh(
            each.subscription_id
        )
    side.put(*(with_seats(each, 7) for each in base[:3]))
    passed = -1

    async def end() -> None:
        nonlocal passed
        passed += 1
        if passed == step:
            raise asyncio.CancelledError

    def process(pause: Pause) -> SubscriptionSweep:
        api, used = ScriptedApi(side, pause), PausingStore(database)
        used.pause = pause
        return SubscriptionSweep(
            SweepStore(database),
            used,
            api,
            refresher(bench, used, api),
            PLANS,
            bench.metrics,
            now=bench.clock,
            sleep=lambda _: pause(),
        )

    async def run(pause: Pause) -> None:
        for _ in range(5):
            await process(pause).sweep_page()
            bench.advance(minutes=2)

    with pytest.raises(asyncio.CancelledError):
        await run(end)
    bench.advance(minutes=11)
    await run(no_pause)

    found = await store.find([each.subscription_id for each in base])
    assert [found[each.subscription_id].snapshot.seats for each in base] == [7, 7, 7, 1]
    page = await SweepStore(database).lease(bench.clock() + timedelta(days=1))
    assert page is not None
    assert page.previous_at is not None
