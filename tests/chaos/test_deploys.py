"""Rolling deploys under load: each process ends and starts anew, twenty times; nobody notices."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from uuid import UUID, uuid4

import aio_pika
import pytest

from local_stack.servers import Broker
from metering_chaos.environment import in_thread
from nexus_contracts import Event, EventData
from nexus_messaging.topology import DEAD, EVENTS, TIERS, UNROUTABLE, WORK_QUEUES
from rig.events import tool_run, user_created
from rig.platform import Platform
from rig.vhost import Vhost, message
from rig.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]

ROUNDS = 20
RUNS_A_SECOND = 50
LONGEST_GAP = 5.0
STOPPED_WITHIN = 20.0
DEPLOYED = (
    "usage-ingest",
    "usage-ingest 2",
    "stripe-reporter",
    "stripe-reporter 2",
    "customer-provisioner",
)
SERVICES = ("customer_provisioner", "usage_ingest", "stripe_reporter")

TAP = "tap"

Copy = tuple[str, object, object]
"""The exchange a copy was published to, and its counters of attempts and of waits."""

UNREPORTED = """
SELECT (SELECT count(*) FROM usage_events WHERE billing_state <> 'claimed')::int
       + (SELECT count(*) FROM usage_reports WHERE state <> 'reported')::int,
       (SELECT count(*) FROM usage_events)::int
"""
RECORDED = "SELECT event_id, user_id FROM usage_events"
SUMS = """
SELECT a.stripe_customer_id, sum(r.event_count)::int
  FROM usage_reports r JOIN billing_accounts a USING (user_id) GROUP BY 1
"""
RECORDED_AT = "SELECT DISTINCT extract(epoch FROM created_at)::float8 FROM usage_events ORDER BY 1"
CALLED_AT = "SELECT extract(epoch FROM started_at)::float8 FROM meter_calls ORDER BY 1"
CALLS = "SELECT max(attempts), count(*) FILTER (WHERE state <> 'accepted')::int FROM meter_calls"


@dataclass
class Load:
    """What an outside service publishes: runs all the time, and now and then a new user's first."""

    vhost: Vhost
    users: list[UUID] = field(default_factory=list)
    runs: dict[UUID, UUID] = field(default_factory=dict)

    async def publish(self, stop: asyncio.Event) -> None:
        """Publish steadily until told to stop; each message is confirmed before the next."""
        began, number = time.monotonic(), 0
        async with self.vhost.channel("publisher") as channel:
            events = await channel.get_exchange(EVENTS, ensure=False)
            while not stop.is_set():
                for each in self._next(number):
                    await events.publish(message(each), each.type)
                number += 1
                await asyncio.sleep(began + number / RUNS_A_SECOND - time.monotonic())

    def _next(self, number: int) -> list[Event[EventData]]:
        if number % (RUNS_A_SECOND * 2) and self.users:
            return [self._run(self.users[number % len(self.users)])]
        user = uuid4()
        self.users.append(user)
        return [user_created(user, f"{user}@example.com"), self._run(user)]

    def _run(self, user: UUID) -> Event[EventData]:
        run = tool_run(user, time=datetime.now(UTC))
        self.runs[run.id] = user
        return run


@pytest.fixture
async def vhost(broker: Broker, password: str) -> AsyncIterator[Vhost]:
    """Return a vhost whose retry tiers wait as long as in production."""
    fresh = Vhost(broker, f"metering-{secrets.token_hex(4)}", password)
    await fresh.create(tier_scale=1.0)
    yield fresh
    await fresh.delete()


@pytest.fixture
async def deployed(
    vhost: Vhost, clone: Callable[[str], Awaitable[str]], tmp_path: Path
) -> AsyncIterator[Platform]:
    """Return all services, two processes of those of which production has two."""
    databases = {service: await clone(service) for service in SERVICES}
    platform = Platform(vhost, databases, tmp_path)
    try:
        platform.start()
        platform.start_second("usage-ingest")
        platform.start_second("stripe-reporter")
        yield platform
    finally:
        platform.stop()


async def test_rolling_deploys_under_load_cost_nothing_and_hold_nothing_up(
    deployed: Platform,
) -> None:
    """All is recorded and reported once, no budget is spent, no dead letter, no gap of note."""
    vhost = deployed.vhost
    async with tapped(vhost) as copies, loaded(vhost) as load:
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
    assert recordings < LONGEST_GAP
    assert calls < LONGEST_GAP


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
    load, stop = Load(vhost), asyncio.Event()
    publishing = asyncio.create_task(load.publish(stop))
    try:
        yield load
    finally:
        stop.set()
        await publishing


@asynccontextmanager
async def tapped(vhost: Vhost) -> AsyncIterator[Counter[Copy]]:
    """Count every copy that goes to a retry tier or dies, by exchange, attempts and waits.

    An extra queue bound to all of them hears what no counter of a process that ends can tell.
    """
    copies: Counter[Copy] = Counter()

    async def count(copy: aio_pika.abc.AbstractIncomingMessage) -> None:
        attempt, waits = (copy.headers.get(f"nexus-{name}") for name in ("attempt", "waits"))
        copies[copy.exchange or "", attempt, waits] += 1

    async with vhost.channel() as channel:
        queue = await channel.declare_queue(TAP, auto_delete=True)
        for exchange in (*(tier.name for tier in TIERS), DEAD):
            await queue.bind(exchange, "#")
        await queue.consume(count, no_ack=True)
        await vhost.publish_raw(b"", TAP, exchange=TIERS[0].name, headers={"nexus-attempt": 7})
        heard = Counter({(TIERS[0].name, 7, None): 1})
        assert await eventually(lambda: as_they_are(copies), bool) == heard, "the tap is deaf"
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
    """Compare what was published with the ledger, and the ledger with Stripe."""
    recorded = await platform.rows("usage_ingest", RECORDED)
    assert sorted(recorded) == sorted(load.runs.items())
    ours = {row[0]: row[1] for row in await platform.rows("usage_ingest", SUMS)}
    async with platform.stripe() as stripe:
        theirs = {each["customer"]: each["value"] for each in await stripe.sums()}
        attempts = await stripe.attempts()
    assert theirs == ours
    assert sum(theirs.values()) == len(load.runs)
    assert {each["accepted"] for each in attempts.values()} == {1}


async def longest_gap(
    platform: Platform, service: str, query: str, began: float, ended: float
) -> float:
    """Return the longest time in which nothing happened while there was load."""
    rows = await platform.rows(service, query)
    moments = [began, *(float(str(at)) for (at,) in rows if began < float(str(at)) < ended), ended]
    return max(later - earlier for earlier, later in pairwise(moments))


async def left_over(vhost: Vhost) -> dict[str, int]:
    """Return what waits anywhere though all is done: dead, unroutable, or handed back."""
    names = (*WORK_QUEUES, *(f"{queue}.dlq" for queue in WORK_QUEUES), UNROUTABLE)
    depths = {name: await vhost.depth(name) for name in names}
    return {name: depth for name, depth in depths.items() if depth}


def failures(platform: Platform) -> list[str]:
    """Return the log lines in which a service says that a message's processing failed."""
    lines = (line for name in platform.services for line in platform.log(name).splitlines())
    return [line for line in lines if "message_retried" in line or "dead_lettered" in line]
