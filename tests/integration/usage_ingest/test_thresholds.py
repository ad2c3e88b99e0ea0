"""Shares of limits are announced once, with an id that never changes, whoever subscribed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import aio_pika
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from typing_extensions import override

from integration.usage_ingest.billed import RULES
from nexus_contracts import (
    Event,
    SubscriptionChanged,
    UsageThresholdReached,
    UsageThresholdReachedV1,
    read_event,
)
from nexus_database import Database
from nexus_messaging.publisher import Publisher
from nexus_messaging.topology import NOTICES, SUBSCRIPTION_PREFIX
from nexus_plans import Plans, load
from support.events import provisioned, tool_run
from support.vhost import Vhost
from usage_ingest.entry import Entry
from usage_ingest.jobs import Announcer
from usage_ingest.metrics import IngestMetrics
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.subscriptions import Subscriptions
from usage_ingest.storage.thresholds import Thresholds
from usage_ingest.storage.totals import Totals
from usage_ingest.thresholds import announced_meters, event_id

ACCOUNT = UUID(int=7)
NOW = datetime.now(UTC)
QUEUE = f"{SUBSCRIPTION_PREFIX}test"
PLANS = """
version: 1
unknown_users: free
without_subscription: free
plans:
  free:
    display_name: Free
    limits:
      - {name: runs, meter: tool_call_executed, limit: 10, hard: true, tell_at: [50, 100]}
      - {name: silent, meter: tool_call_executed, limit: 5}
  pro:
    display_name: Pro
    limits:
      - {name: runs, meter: tool_call_executed, limit: 20, tell_at: [50]}
"""


@pytest.fixture
def plans(tmp_path: Path) -> Plans:
    """Return two plans with limits on runs."""
    file = tmp_path / "plans.yaml"
    file.write_text(PLANS)
    return load(file)


class Announcing:
    """The parts that lead from runs to announcements."""

    def __init__(self, database: Database, publisher: Publisher, plans: Plans) -> None:
        self.database = database
        self.metrics = IngestMetrics(CollectorRegistry(), meters=RULES.meters)
        self.totals = Totals(database, announced_meters=announced_meters(plans))
        self.thresholds = Thresholds(database)
        self.publisher = publisher
        self.plans = plans

    async def run(self, number: int, at: datetime | None = None) -> None:
        """Record and claim ``number`` runs of the account, of now or of a time, and fold them."""
        time = at or datetime.now(UTC) - timedelta(seconds=1)
        events = [tool_run(ACCOUNT, time=time) for _ in range(number)]
        await Ledger(self.database).record([Entry.of(each, RULES, NOW) for each in events])
        claims = Claims(self.database, window=timedelta(0), dimensions=())
        await claims.claim(datetime.now(UTC))
        await self.totals.fold()

    async def announce(self, now: datetime | None = None) -> None:
        """Announce what was reached."""
        moment = now or datetime.now(UTC)
        announcer = Announcer(
            self.thresholds, self.publisher, self.plans, self.metrics, now=lambda: moment
        )
        while await announcer.announce():
            pass

    async def subscribe(self, begins: datetime, ends: datetime, revision: int = 1) -> None:
        """Have the account subscribe to `pro`, or begin another period."""
        change = SubscriptionChanged(
            subscription_id="sub_1",
            account_id=ACCOUNT,
            stripe_customer_id="cus_one",
            revision=revision,
            plan_type="pro",
            status="active",
            items=[],
            period_start=begins,
            period_end=ends,
            plan_since=begins,
            as_of=NOW,
        )
        await Subscriptions(self.database, best=max).apply(change)

    async def change(self, statement: str) -> None:
        """Change the totals by hand."""
        await self.database.run(lambda c: c.execute(text(statement)))

    async def touched(self) -> int:
        """Return how many amounts have yet to be looked at."""
        query = text("SELECT count(*) FROM touched_amounts")
        return int((await self.database.run(lambda c: c.execute(query))).scalar_one())


@pytest.fixture
async def announcing(database: Database, vhost: Vhost, plans: Plans) -> AsyncIterator[Announcing]:
    """Return the parts, with an account that has a customer."""
    await Accounts(database).apply(provisioned(ACCOUNT, "cus_one").data)
    publisher = await Publisher.connect(vhost.url("usage-ingest"), name="usage-ingest")
    yield Announcing(database, publisher, plans)
    await publisher.close()


@asynccontextmanager
async def subscriber(vhost: Vhost) -> AsyncIterator[aio_pika.abc.AbstractQueue]:
    """Bind a queue to the notices, as an operator does for a subscriber."""
    async with await aio_pika.connect(vhost.admin_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(QUEUE, durable=True)
        await queue.bind(NOTICES, "usage.threshold_reached.*")
        yield queue


async def received(
    queue: aio_pika.abc.AbstractQueue,
) -> Sequence[Event[UsageThresholdReached]]:
    """Take all that has come: a publish that was confirmed is in the queue."""
    events = []
    while (message := await queue.get(fail=False, no_ack=True)) is not None:
        events.append(read_event(message.body, [UsageThresholdReachedV1]))
    return events


async def test_share_is_announced_once_when_it_is_reached(
    announcing: Announcing, vhost: Vhost
) -> None:
    """With what was used, in the UTC month while no billing period is known."""
    async with subscriber(vhost) as queue:
        await announcing.run(4)
        await announcing.announce()
        before = await received(queue)

        await announcing.run(2)
        await announcing.announce()
        [half] = await received(queue)

        await announcing.run(5)
        await announcing.announce()
        await announcing.run(1)
        await announcing.announce()
        [all_of_it] = await received(queue)

    month = NOW.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert before == []
    assert (half.data.account_id, half.data.limit_name) == (ACCOUNT, "runs")
    assert (half.data.limit, half.data.share_percent, half.data.used) == (10, 50, 6)
    assert half.data.period_start == month
    assert half.data.period_end == (month + timedelta(days=32)).replace(day=1)
    assert (all_of_it.data.share_percent, all_of_it.data.used) == (100, 11)
    assert half.id == event_id(half.data) != all_of_it.id
    assert await announcing.touched() == 0


async def test_without_a_subscriber_it_is_announced_and_holds_nothing_up(
    announcing: Announcing,
) -> None:
    """The broker confirms what it routes to no queue."""
    await announcing.run(10)

    await announcing.announce()

    assert await announcing.touched() == 0
    query = text("SELECT share_percent FROM thresholds_sent ORDER BY 1")
    sent = (await announcing.database.run(lambda c: c.execute(query))).scalars().all()
    assert sent == [50, 100]


async def test_crash_after_the_confirm_repeats_it_with_the_same_id(
    announcing: Announcing, vhost: Vhost
) -> None:
    """The lease of the process that died runs out."""
    async with subscriber(vhost) as queue:
        await announcing.run(6)
        usual = announcing.thresholds
        announcing.thresholds = DyingThresholds(announcing.database)
        with pytest.raises(asyncio.CancelledError):
            await announcing.announce()
        announcing.thresholds = usual
        await announcing.announce()
        assert await announcing.touched() == 1

        await announcing.announce(datetime.now(UTC) + timedelta(minutes=2))

        first, second = await received(queue)
    assert first.id == second.id
    assert await announcing.touched() == 0


class DyingThresholds(Thresholds):
    """Is killed before it stores what was announced."""

    @override
    async def settle(self, *_: object, **__: object) -> None:
        """Die."""
        raise asyncio.CancelledError


async def test_without_the_broker_it_is_announced_later(
    announcing: Announcing, vhost: Vhost
) -> None:
    """Nothing is stored as sent that was not confirmed."""
    await announcing.run(6)
    lost, announcing.publisher = announcing.publisher, Publisher("amqp://nowhere", "lost")
    await announcing.announce()
    assert await announcing.touched() == 1
    announcing.publisher = lost

    async with subscriber(vhost) as queue:
        await announcing.announce()

        [event] = await received(queue)
    assert event.data.used == 6


async def test_changed_plan_is_looked_at_in_its_own_period(
    announcing: Announcing, vhost: Vhost
) -> None:
    """Usage of before may have reached a share of the new plan's limits."""
    await announcing.run(12)
    await announcing.announce()
    begins = (NOW - timedelta(hours=1)).replace(microsecond=0)
    async with subscriber(vhost) as queue:
        await announcing.subscribe(begins, begins + timedelta(days=30))
        await announcing.announce()

        [event] = await received(queue)
    assert (event.data.limit, event.data.share_percent, event.data.used) == (20, 50, 12)
    assert (event.data.period_start, event.data.period_end) == (
        begins,
        begins + timedelta(days=30),
    )


@pytest.mark.parametrize("next_is_known", [True, False], ids=["next known", "next expected"])
async def test_share_reached_in_a_periods_last_seconds_is_announced(
    announcing: Announcing, vhost: Vhost, *, next_is_known: bool
) -> None:
    """It was claimed after the period's end. The next period begins with nothing used."""
    ends = (NOW - timedelta(minutes=5)).replace(microsecond=0)
    begins = ends - timedelta(days=10)
    await announcing.subscribe(begins, ends)
    if next_is_known:
        await announcing.subscribe(ends, ends + timedelta(days=10), revision=2)

    async with subscriber(vhost) as queue:
        await announcing.run(10, at=ends - timedelta(seconds=1))
        await announcing.announce()
        [last] = await received(queue)
        await announcing.run(9, at=ends)
        await announcing.announce()
        before = await received(queue)
        await announcing.run(1, at=ends)
        await announcing.announce()
        [new] = await received(queue)

    assert (last.data.period_start, last.data.period_end) == (begins, ends)
    assert (last.data.used, new.data.used, before) == (10, 10, [])
    assert new.data.period_start == ends
    assert await announcing.touched() == 0


async def test_share_reached_in_a_months_last_seconds_is_announced(
    announcing: Announcing, vhost: Vhost
) -> None:
    """Of an account without a subscription."""
    month = NOW.replace(day=1, hour=0, minute=0, second=0, microsecond=0)

    async with subscriber(vhost) as queue:
        await announcing.run(5, at=month - timedelta(seconds=1))
        await announcing.announce()

        [event] = await received(queue)
    assert (event.data.limit, event.data.share_percent, event.data.used) == (10, 50, 5)
    assert event.data.period_end == month


async def test_before_its_first_period_nothing_is_announced_of_another_kind(
    announcing: Announcing, vhost: Vhost
) -> None:
    """The UTC month goes on, but no limit is counted by it any more."""
    begins = (NOW - timedelta(hours=1)).replace(microsecond=0)
    await announcing.subscribe(begins, begins + timedelta(days=30))

    async with subscriber(vhost) as queue:
        await announcing.run(20, at=begins - timedelta(seconds=1))
        await announcing.announce()

        assert await received(queue) == []
    assert await announcing.touched() == 0


async def test_share_found_by_a_rebuild_is_announced(announcing: Announcing, vhost: Vhost) -> None:
    """The ledger was older than its totals, or somebody changed these."""
    await announcing.run(6)
    await announcing.change("DELETE FROM touched_amounts")
    await announcing.change("UPDATE folded_amounts SET value = 0")

    async with subscriber(vhost) as queue:
        await announcing.announce()
        before = await received(queue)
        await Totals(announcing.database).rebuild("amounts")
        await announcing.announce()

        [event] = await received(queue)
    assert (event.data.used, before) == (6, [])


async def test_amount_touched_while_it_is_announced_is_looked_at_again(
    announcing: Announcing,
) -> None:
    """A fold between the look and its end is not lost."""
    await announcing.run(1)
    touched, _ = await announcing.thresholds.lease(datetime.now(UTC))
    await announcing.run(9)

    await announcing.thresholds.settle(touched, [], all_sent=True)

    [[again], [usage]] = await announcing.thresholds.lease(datetime.now(UTC))
    assert again.account_id == ACCOUNT
    assert usage.used == 10
