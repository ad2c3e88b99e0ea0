"""That all subscriptions were read is announced, once each of them has been."""

import asyncio
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from customer_provisioner.announcing import announced_readings, announced_subscriptions
from customer_provisioner.refreshing import Refresher
from customer_provisioner.relay import Announced, Relay, publish_again
from customer_provisioner.storage.subscriptions import SubscriptionStore
from customer_provisioner.storage.sweeps import SweepStore
from customer_provisioner.subscription_sweep import SubscriptionSweep
from nexus_contracts import SubscriptionChanged, SubscriptionsRead, read_event
from nexus_database import Database
from nexus_messaging.publisher import Publisher
from nexus_messaging.topology import SUBSCRIPTION_CHANGED_QUEUE
from nexus_service.console import steps
from support.vhost import Vhost

from .conftest import Bench, user
from .subscribing import PLANS, ScriptedApi, StripeSide, subscription, with_seats

IDS = ("sub_1", "sub_2", "sub_3")
"""They take two pages."""


@dataclass
class Nights:
    """The nightly sweep, and the relays of what it reads."""

    bench: Bench
    side: StripeSide
    database: Database
    publisher: Publisher
    vhost: Vhost

    def __post_init__(self) -> None:
        """Join the parts as the service does."""
        self.store = SubscriptionStore(self.database)
        api = ScriptedApi(self.side)
        self.refresher = Refresher(
            self.store,
            self.bench.profiles,
            self.bench.provisioner._stripe,
            api,
            PLANS,
            self.bench.metrics,
            wake_relay=lambda: None,
            now=self.bench.clock,
        )
        self.sweep = SubscriptionSweep(
            SweepStore(self.database),
            self.store,
            api,
            self.refresher,
            PLANS,
            self.bench.metrics,
            now=self.bench.clock,
            sleep=_no_wait,
        )

    async def read(self, pages: int) -> datetime:
        """Read some pages; return when the first of them began, at the earliest."""
        began = self.bench.clock()
        for _ in range(pages):
            await self.sweep.sweep_page()
            self.bench.advance(minutes=2)
        return began

    async def announce_subscriptions(self) -> None:
        """Publish those that are not announced."""
        await self._relay(announced_subscriptions(self.database)).publish_unannounced()

    async def announce_reading(self) -> None:
        """Publish that all were read, if it is to be."""
        await self._relay(announced_readings(self.database)).publish_unannounced()

    def _relay(self, facts: Announced[Any]) -> Relay[Any]:
        return Relay(facts, self.publisher, self.bench.metrics, self.bench.clock)

    async def published(self) -> Sequence[SubscriptionChanged | SubscriptionsRead]:
        """Return what was published, in order."""
        messages = await self.vhost.peek(SUBSCRIPTION_CHANGED_QUEUE)
        kinds: list[type[SubscriptionChanged | SubscriptionsRead]] = [
            SubscriptionChanged,
            SubscriptionsRead,
        ]
        return [read_event(each.body, kinds).data for each in messages]

    async def readings(self) -> list[SubscriptionsRead]:
        """Return the readings that were published."""
        return [each for each in await self.published() if isinstance(each, SubscriptionsRead)]


async def _no_wait(_seconds: float) -> None:
    """Wait for no webhook."""


@pytest.fixture
async def nights(bench: Bench, database: Database, publisher: Publisher, vhost: Vhost) -> Nights:
    """Return a service whose one account has all subscriptions at Stripe."""
    data = user()
    await bench.keep(data)
    customer_id = await bench.provisioner.provision(data.user_id)
    side = StripeSide()
    side.put(*(subscription(each, customer_id) for each in IDS))
    return Nights(bench, side, database, publisher, vhost)


async def test_a_reading_is_announced_after_all_that_it_saw(nights: Nights) -> None:
    """A consumer takes a subscription that it does not know for none. And it is announced once."""
    began = await nights.read(pages=1)
    await nights.announce_subscriptions()
    await nights.announce_reading()
    assert await nights.readings() == []
    await nights.read(pages=1)
    await nights.announce_reading()
    assert await nights.readings() == []

    await nights.announce_subscriptions()
    for _ in range(2):
        await nights.announce_reading()

    *changed, read = await nights.published()
    assert [each.subscription_id for each in changed if isinstance(each, SubscriptionChanged)] == [
        *IDS
    ]
    assert isinstance(read, SubscriptionsRead)
    assert 0 <= (read.began_at - began).total_seconds() < 60
    assert 120 <= (read.ended_at - read.began_at).total_seconds() < 180


async def test_a_subscription_that_changes_before_it_was_announced_holds_the_reading_up(
    nights: Nights,
) -> None:
    """What is stored of it is newer than the reading; no consumer knows it yet."""
    await nights.read(pages=2)
    changed = with_seats(nights.side.subscriptions["sub_2"], 5)
    nights.side.put(changed)
    unannounced = await nights.store.unannounced(10)
    rest = [each for each in unannounced if each.subscription_id != "sub_2"]
    await nights.store.mark_announced(rest, nights.bench.clock())
    await nights.refresher.refresh("sub_2")

    await nights.announce_reading()
    assert await nights.readings() == []
    await nights.announce_subscriptions()
    await nights.announce_reading()

    assert len(await nights.readings()) == 1


async def test_changes_after_the_reading_do_not_hold_it_up(nights: Nights) -> None:
    """Of what was announced since it began; else a busy account would wait for ever."""
    await nights.read(pages=2)
    await nights.announce_subscriptions()
    nights.side.put(with_seats(nights.side.subscriptions["sub_2"], 5))
    await nights.refresher.refresh("sub_2")

    await nights.announce_reading()

    assert len(await nights.readings()) == 1


async def test_an_abandoned_sweep_announces_nothing(nights: Nights) -> None:
    """The next complete one is announced, with the time at which it began."""
    await nights.read(pages=1)
    progress = SweepStore(nights.database)
    page = await progress.lease(nights.bench.clock())
    assert page is not None
    await progress.abandon(page, nights.bench.clock())
    await nights.announce_subscriptions()
    await nights.announce_reading()
    assert await nights.readings() == []

    began = await nights.read(pages=2)
    await nights.announce_subscriptions()
    await nights.announce_reading()

    (read,) = await nights.readings()
    assert read.began_at >= began


async def test_a_sweep_that_could_not_store_all_announces_nothing(nights: Nights) -> None:
    """Its account would be taken for one without a subscription."""
    nights.side.refused = {"sub_1"}
    await nights.read(pages=2)
    await nights.announce_subscriptions()
    await nights.announce_reading()
    assert await nights.readings() == []

    nights.side.refused = set()
    nights.bench.advance(days=1)
    await nights.read(pages=2)
    await nights.announce_subscriptions()
    await nights.announce_reading()

    assert len(await nights.readings()) == 1


async def test_each_sweep_is_announced(nights: Nights) -> None:
    """With its own beginning, in order."""
    for _ in range(2):
        await nights.read(pages=2)
        await nights.announce_subscriptions()
        await nights.announce_reading()
        nights.bench.advance(days=1)

    first, second = await nights.readings()
    assert (second.began_at - first.began_at).days == 1


@pytest.mark.parametrize("lost", ["confirm", "mark"])
async def test_a_crash_announces_the_same_reading_again(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """A process ends before the broker has confirmed, or before that is stored."""
    await nights.read(pages=2)
    await nights.announce_subscriptions()

    async def end(*_: object, **__: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        if lost == "confirm":
            patch.setattr(Publisher, "publish_all", end)
        else:
            patch.setattr(SweepStore, "mark_announced", end)
        with pytest.raises(asyncio.CancelledError):
            await nights.announce_reading()
    await nights.announce_reading()
    await nights.announce_reading()

    published = await nights.vhost.peek(SUBSCRIPTION_CHANGED_QUEUE)
    ids = {each.message_id for each in published[len(IDS) :]}
    assert len(ids) == 1
    assert len(published) == len(IDS) + (1 if lost == "confirm" else 2)


async def test_a_reading_is_announced_again_on_request(nights: Nights) -> None:
    """For a consumer that was restored from an older backup, after the subscriptions."""
    began = await nights.read(pages=2)
    await nights.announce_subscriptions()
    await nights.announce_reading()

    async def again(since: datetime) -> None:
        with steps("announcements", stream=io.StringIO()) as progress:
            await publish_again(
                announced_readings(nights.database),
                since=since,
                publisher=nights.publisher,
                per_second=1000,
                progress=progress,
            )

    await again(nights.bench.clock())
    assert len(await nights.readings()) == 1
    await again(began)

    first, second = await nights.readings()
    assert first == second
