"""The periodic jobs on a real PostgreSQL and a real broker, with backlogs and in outages."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

from prometheus_client import CollectorRegistry
from sqlalchemy import text
from structlog.testing import capture_logs

from nexus_database import Database
from nexus_messaging.message import Delivery, Message
from nexus_messaging.publisher import Publisher
from nexus_messaging.topology import TOOL_EXECUTED_QUEUE, USAGE_RECORDED_QUEUE
from nexus_service.periodic import Periodic
from nexus_service.work import WorkRegistry
from support.deliveries import delivery
from support.events import provisioned, tool_run
from support.vhost import Vhost
from support.waiting import eventually
from usage_ingest.app import GATHER, IDLE
from usage_ingest.entry import Entry
from usage_ingest.handlers import BACKLOG, record_usage
from usage_ingest.jobs import Relay, claim_usage
from usage_ingest.metering import BillingRules
from usage_ingest.metrics import IngestMetrics
from usage_ingest.settings import NAME
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.claims import MAX_EVENTS, Claims
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.reports import Reports

RULES = BillingRules("tool_call_executed", None, frozenset({"succeeded"}))
BATCHES = 5

MORE = text("""
INSERT INTO usage_events (event_id, source, schema_version, digest, user_id, server_id, tool_name,
                          origin, status, readings, occurred_at, billing_state)
SELECT gen_random_uuid(), source, schema_version, digest, user_id, server_id, tool_name, origin,
       status, readings, occurred_at, billing_state
  FROM usage_events CROSS JOIN generate_series(1, :more)
""")
"""Inserts more runs like the one that is there."""


def claim_job(database: Database, *, every: float = IDLE, gather: float = GATHER) -> Periodic:
    """Return the periodic job that claims by windows of ten seconds, as the service has it."""
    registry = CollectorRegistry()
    job = partial(
        claim_usage,
        Claims(database, window=timedelta(seconds=10), dimensions=()),
        IngestMetrics(registry, meters=RULES.meters),
        now=lambda: datetime.now(UTC),
        wake_relay=lambda: None,
    )
    work = WorkRegistry(registry, service=NAME).add("claim", continuous=True)
    return Periodic(job, work, every=every, gather=gather)


async def test_late_runs_of_several_batches_become_two_reports(database: Database) -> None:
    """The first is claimed at once, as after a quiet time; the windows of the others have one."""
    now = datetime.now(UTC)
    user, minute = uuid4(), now.replace(second=0, microsecond=0) - timedelta(minutes=5)
    await Accounts(database).apply(provisioned(user, "cus_known").data)
    claim = claim_job(database, every=3600, gather=2.0)
    claiming = asyncio.create_task(claim.run())

    async def record() -> None:
        await Ledger(database).record([Entry.of(tool_run(user, time=minute), RULES, now)])
        claim.wake()

    try:
        await record()
        await eventually(lambda: _reports(database), lambda found: found == [1], within=20)
        for _ in range(BATCHES):
            await record()
        reports = await eventually(
            lambda: _reports(database), lambda found: sum(found) == 1 + BATCHES, within=20
        )
    finally:
        claiming.cancel()

    assert reports == [1, BATCHES]


async def test_backlog_of_runs_in_one_window_becomes_one_report(database: Database) -> None:
    """Full batches leave the claim to the batch that ends the backlog, or to the interval."""
    registry, user = CollectorRegistry(), uuid4()
    minute = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=5)
    await Accounts(database).apply(provisioned(user, "cus_known").data)
    claim = claim_job(database, every=3600, gather=0.001)
    claiming = asyncio.create_task(claim.run())
    record = partial(
        record_usage,
        ledger=Ledger(database),
        rules=RULES,
        metrics=IngestMetrics(registry, meters=RULES.meters),
        recording=WorkRegistry(registry, service=NAME).add("record"),
        claim=claim,
        now=lambda: datetime.now(UTC),
    )

    def runs(number: int) -> list[Delivery]:
        events = [tool_run(user, time=minute) for _ in range(number)]
        return [delivery(Message.of(event), TOOL_EXECUTED_QUEUE) for event in events]

    try:
        await record(runs(1))
        await eventually(lambda: _reports(database), lambda found: found == [1], within=20)
        for _ in range(BATCHES):
            await record(runs(BACKLOG))
        await record(runs(1))
        reports = await eventually(
            lambda: _reports(database), lambda found: len(found) > 1, within=20
        )
    finally:
        claiming.cancel()

    assert reports == [1, BATCHES * BACKLOG + 1]


async def test_outage_of_the_broker_is_logged_once(vhost: Vhost, database: Database) -> None:
    """One line when it begins and one when it is over, however many rounds fail between."""
    now, user = datetime.now(UTC), uuid4()
    await Accounts(database).apply(provisioned(user, "cus_known").data)
    minute = now - timedelta(minutes=5)
    await Ledger(database).record([Entry.of(tool_run(user, time=minute), RULES, now)])
    claims = Claims(database, window=timedelta(seconds=10), dimensions=())
    await claims.claim(now)
    publisher = await Publisher.connect(vhost.url("usage-ingest"), name="usage-ingest")
    metrics = IngestMetrics(CollectorRegistry(), meters=RULES.meters)
    relay = Relay(Reports(database), publisher, metrics, now=lambda: datetime.now(UTC))
    await vhost.ask("DELETE", "queues/{vhost}/" + USAGE_RECORDED_QUEUE)

    with capture_logs() as logs:
        for _ in range(3):
            assert not await relay.forward()
        await vhost.create(tier_scale=1)
        await relay.forward()
    await publisher.close()

    assert [(each["event"], each.get("reports"), each.get("failed")) for each in logs] == [
        ("reports_not_forwarded", 1, None),
        ("reports_forwarded_again", None, 3),
    ]


async def _reports(database: Database) -> list[int]:
    query = text("SELECT value FROM usage_reports ORDER BY created_at")
    return [row.value for row in await database.run(lambda c: c.execute(query))]


async def test_backlog_beyond_one_claim_is_claimed_without_a_pause(
    database: Database,
) -> None:
    """If the job waited to be woken after each claim, it would fall behind on a busy day."""
    now, user = datetime.now(UTC), uuid4()
    await Accounts(database).apply(provisioned(user, "cus_known").data)
    one = Entry.of(tool_run(user, time=now - timedelta(minutes=5)), RULES, now)
    await Ledger(database).record([one])
    await database.run(lambda c: c.execute(MORE, {"more": MAX_EVENTS}))
    claim = claim_job(database, every=3600)
    claiming = asyncio.create_task(claim.run())
    try:
        await eventually(
            lambda: _reports(database), lambda found: sum(found) == MAX_EVENTS + 1, within=20
        )
    finally:
        claiming.cancel()
