"""Rolling deploys under load: each process is replaced twenty times, without any effect."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from uuid import UUID, uuid4

import aio_pika
import pytest

from local_stack.servers import Broker
from metering_chaos.environment import in_thread
from nexus_contracts import Event, EventData
from nexus_messaging.topology import DEAD, EVENTS, TIERS, UNROUTABLE, WORK_QUEUES
from support.billing import assert_counted_once
from support.events import tool_run, user_created
from support.platform import Platform
from support.vhost import Vhost, message, open_vhost
from support.waiting import eventually, repeated

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]

ROUNDS = 20
RUNS_A_SECOND = 50
MAX_GAP_SECONDS = 5.0
STOPPED_WITHIN = 20.0
DEPLOYED = (
    "usage-ingest",
    "usage-ingest 2",
    "stripe-reporter",
    "stripe-reporter 2",
    "customer-provisioner",
)
OBSERVER = "observer"

Copy = tuple[str, object, object]
"""The exchange a copy was published to, and its counters of attempts and of waits."""

UNREPORTED = """
SELECT (SELECT count(*) FROM usage_events WHERE billing_state <> 'claimed')::int
       + (SELECT count(*) FROM usage_reports WHERE state <> 'reported')::int,
       (SELECT count(*) FROM usage_events)::int
"""
RECORDED = "SELECT event_id, user_id FROM usage_events"
RECORDED_AT = "SELECT DISTINCT extract(epoch FROM created_at)::float8 FROM usage_events ORDER BY 1"
CALLED_AT = "SELECT extract(epoch FROM started_at)::float8 FROM meter_calls ORDER BY 1"
CALLS = "SELECT max(attempts), count(*) FILTER (WHERE state <> 'accepted')::int FROM meter_calls"


@dataclass
class Load:
    """An outside service: it publishes runs steadily, and every two seconds a new user's first."""

    users: list[UUID] = field(default_factory=list)
    runs: dict[UUID, UUID] = field(default_factory=dict)

    def next_events(self) -> list[Event[EventData]]:
        """Return the next run, with its user if that is new."""
        number = len(self.runs)
        if number % (RUNS_A_SECOND * 2) and self.users:
            return [self._run(self.users[number % len(self.users)])]
        user = uuid4()
        self.users.append(user)
        return [user_created(user, f"{user}@example.com"), self._run(user)]

    def _run(self, user: UUID) -> Event[EventData]:
        run = tool_run(user)
        self.runs[run.id] = user
        return run


@pytest.fixture
async def vhost(broker: Broker, password: str) -> AsyncIterator[Vhost]:
    """Return a vhost whose retry tiers wait as long as in production."""
    async with open_vhost(broker, password, tier_scale=1.0) as made:
        yield made


@pytest.fixture
def deployed(platform: Platform) -> Platform:
    """Return all services, two processes of those of which production has two."""
    platform.start()
    platform.start_second("usage-ingest")
    platform.start_second("stripe-reporter")
    return platform


async def test_rolling_deploys_under_load_have_no_effect(deployed: Platform) -> None:
    """Each run is recorded and counted once: no budget spent, no dead letter, no gap over 5 s."""
    vhost = deployed.vhost
    async with observed_copies(vhost) as copies, loaded(vhost) as load:
        began = time.time()
        for _ in range(ROUNDS):
            for name in DEPLOYED:
                await deploy(deployed, name)
        ended = time.time()
    await all_reported(deployed, len(load.runs))

    recordings = await longest_gap(deployed, "usage_ingest", RECORDED_AT, began, ended)
    calls = await longest_gap(deployed, "stripe_reporter", CALLED_AT, began, ended)
    print(
        f"deploys: {ROUNDS * len(DEPLOYED)} processes in {ended - began:.0f} s, {len(load.runs)}"
        f" runs; longest gap between recordings {recordings:.2f} s, between calls {calls:.2f} s;"
        f" copies {dict(copies)}; journal {await deployed.rows('stripe_reporter', CALLS)}"
    )
    await assert_all_counted_once(deployed, load)
    assert {attempt for _, attempt, _ in copies} <= {1}
    assert DEAD not in {exchange for exchange, _, _ in copies}
    assert await left_over(vhost) == {}
    assert failures(deployed) == []
    assert recordings < MAX_GAP_SECONDS
    assert calls < MAX_GAP_SECONDS


async def deploy(platform: Platform, name: str) -> None:
    """Replace one process as an orchestrator does: SIGTERM, exit 0, a new one, ready."""
    process = platform.services[name]
    process.terminate()
    assert await in_thread(lambda: process.wait_for_exit(STOPPED_WITHIN)), f"{name} hangs"
    assert process.exit_code == 0
    await in_thread(process.launch)
    await in_thread(process.await_ready)


@asynccontextmanager
async def loaded(vhost: Vhost) -> AsyncIterator[Load]:
    """Publish steadily while the context lasts."""
    load = Load()
    async with vhost.channel("publisher") as channel:
        exchange = await channel.get_exchange(EVENTS, ensure=False)

        async def publish() -> None:
            for each in load.next_events():
                await exchange.publish(message(each), each.type)

        async with repeated(publish, every=1 / RUNS_A_SECOND):
            yield load


@asynccontextmanager
async def observed_copies(vhost: Vhost) -> AsyncIterator[Counter[Copy]]:
    """Count the copies to retry tiers and dead-letter queues, by exchange, attempts and waits.

    An additional queue is bound to all of them, as counters end with their process.
    """
    copies: Counter[Copy] = Counter()

    async def count(copy: aio_pika.abc.AbstractIncomingMessage) -> None:
        attempt, waits = (copy.headers.get(f"nexus-{name}") for name in ("attempt", "waits"))
        copies[copy.exchange or "", attempt, waits] += 1

    async with vhost.channel() as channel:
        queue = await channel.declare_queue(OBSERVER, auto_delete=True)
        for exchange in (*(tier.name for tier in TIERS), DEAD):
            await queue.bind(exchange, "#")
        await queue.consume(count, no_ack=True)
        await vhost.publish_raw(b"", OBSERVER, exchange=TIERS[0].name, headers={"nexus-attempt": 7})
        probe = Counter({(TIERS[0].name, 7, None): 1})
        assert await eventually(lambda: as_they_are(copies), bool) == probe, "nothing is observed"
        copies.clear()
        yield copies


async def as_they_are(copies: Counter[Copy]) -> Counter[Copy]:
    """Return the copies counted so far."""
    return Counter(copies)


async def all_reported(platform: Platform, runs: int) -> None:
    """Wait until every run is recorded, and reported to Stripe."""
    await eventually(
        lambda: platform.rows("usage_ingest", UNREPORTED),
        lambda rows: rows == [(0, runs)],
        within=120,
        every=1,
    )


async def assert_all_counted_once(platform: Platform, load: Load) -> None:
    """Compare the published runs with the ledger, and the ledger with Stripe."""
    recorded = await platform.rows("usage_ingest", RECORDED)
    assert sorted(recorded) == sorted(load.runs.items())
    await assert_counted_once(platform, len(load.runs))
    async with platform.stripe() as stripe:
        attempts = await stripe.attempts()
    assert {each["accepted"] for each in attempts.values()} == {1}


async def longest_gap(
    platform: Platform, service: str, query: str, began: float, ended: float
) -> float:
    """Return the longest time in seconds without an entry between two moments."""
    rows = await platform.rows(service, query)
    moments = [began, *(float(str(at)) for (at,) in rows if began < float(str(at)) < ended), ended]
    return max(later - earlier for earlier, later in pairwise(moments))


async def left_over(vhost: Vhost) -> dict[str, int]:
    """Return the depth of every queue that is not empty, the retry tiers aside."""
    names = (*WORK_QUEUES, *(f"{queue}.dlq" for queue in WORK_QUEUES), UNROUTABLE)
    depths = {name: await vhost.depth(name) for name in names}
    return {name: depth for name, depth in depths.items() if depth}


def failures(platform: Platform) -> list[str]:
    """Return the log lines of failed messages."""
    lines = (line for name in platform.services for line in platform.log(name).splitlines())
    return [line for line in lines if "message_retried" in line or "dead_lettered" in line]
